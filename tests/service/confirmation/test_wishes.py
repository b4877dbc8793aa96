"""What is wished of a recommendation goes with its confirmation, its report and its page."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

import pytest

from tests.service.pages import page

WISHES = [
    ({"prefer": ["validation_loss"]}, 1),
    ({"prefer": ["latency_ms_p50"]}, 0),
    ({"prefer": ["latency_ms_p50"], "within": ["validation_loss:5%"]}, 1),
    ({"weight": ["latency_ms_p50:9"]}, 0),
]
"""Wishes, and the number of the trial that they choose."""


@pytest.mark.parametrize(("wishes", "number"), WISHES)
def test_all_that_chooses_chooses_the_same(client, make_sweep, wishes, number):
    sweep = make_sweep()
    path = f"/v1/sweeps/{sweep}"
    found = client.get(f"{path}/recommendation", params=wishes).json()
    assert found["trial"]["number"] == number
    made = client.post(f"{path}:confirm", json={"seeds": 1, "candidates": 2, **wishes})
    assert made.status_code == 201, made.text
    first = made.json()["candidates"][0]
    assert (first["trial"]["number"], first["recommended"]) == (number, True)
    told = client.get(f"/v1/sweeps/{made.json()['id']}").json()["sampler_reason"]
    assert all(value in told for values in wishes.values() for value in values)
    (listed,) = client.get(f"{path}/confirmations", params=wishes).json()["items"]
    assert [each["trial"]["number"] for each in listed["candidates"] if each["recommended"]] == [number]
    report = client.get(f"{path}/report", params=wishes | {"format": "json"}).json()
    assert report["recommendation"]["trial"]["number"] == number
    assert [each["trial"]["number"] for each in report["confirmation"]["candidates"] if each["recommended"]] == [number]
    assert client.get(f"{path}/recommendation", params=wishes).json()["confirmation"]["candidates"][0]["recommended"]


@pytest.mark.parametrize(("wishes", "number"), WISHES)
def test_a_page_stars_what_is_wished_and_its_links_say_so(client, make_sweep, wishes, number):
    sweep = make_sweep()
    trial = client.get(f"/v1/sweeps/{sweep}/recommendation", params=wishes).json()["trial"]["trial"]
    shown = page(client, f"/sweeps/{sweep}?{urlencode(wishes, doseq=True)}")
    assert f'data-recommended="{trial}"' in shown
    assert [int(each) for each in re.findall(r'<tr id="row-(\d+)" class="[^"]*chosen', shown)] == [number]
    found = re.findall(r'href="(/v1/sweeps/[^"]*/(?:report|recommendation)[^"]*)"', shown)
    links = [html.unescape(each) for each in found]
    assert len(links) == 3
    for link in links:
        answer = client.get(link, headers={"Accept": "application/json"})
        assert answer.status_code == 200
        assert f"rial {number}" in answer.text or answer.json()["trial"]["number"] == number
    again = html.unescape(re.search(r'id="sweep-results" class="stack" hx-get="([^"]*)"', shown)[1])
    assert f'data-recommended="{trial}"' in page(client, again)
    for name, values in wishes.items():
        for value in values:
            assert f'<input type="hidden" name="{name}" value="{value}" data-list>' in shown


def test_wishes_that_cannot_be_read_are_refused_everywhere(client, make_sweep):
    sweep = make_sweep()
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"prefer": ["speed"]}).status_code == 422
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"trials": [1], "weight": ["speed:2"]}).status_code == 422
    for path in ("confirmations", "recommendation", "report"):
        assert client.get(f"/v1/sweeps/{sweep}/{path}", params={"within": "validation_loss"}).status_code == 422
    assert client.get(f"/sweeps/{sweep}", params={"prefer": "speed"}).status_code == 422
    assert client.get(f"/v1/sweeps/{sweep}/confirmations").json()["items"] == []
