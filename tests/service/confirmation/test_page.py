"""What a sweep's page says of its confirmation."""

from __future__ import annotations

import re

import pytest

from service.recommendation import recommend
from service.recommendation.choice import choose
from tests.service.pages import page


def test_a_sweep_that_can_be_confirmed_offers_it(client, make_sweep):
    sweep = make_sweep()
    text = page(client, f"/sweeps/{sweep}", part="sweep-results")
    assert f'data-api="/v1/sweeps/{sweep}:confirm"' in text
    assert "too good by selection" in text
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"candidates": 2, "seeds": 2}).status_code == 201
    going = page(client, f"/sweeps/{sweep}", part="sweep-results")
    assert "0 of 4 further trainings have ended" in going
    assert 'data-poll="confirmation"' in going
    assert ":confirm" not in going, "one at a time"


def test_what_the_test_split_said_stands_beside_the_recommended_trial(client, confirmed_sweep):
    text = page(client, f"/sweeps/{confirmed_sweep}")
    assert len(re.findall(r"test loss of 3 further seeds</dt><dd>[\d.]+ nats", text)) == 2
    assert "95 % interval" in text
    assert "Confirm again" in text
    assert "data-poll" not in text


@pytest.mark.parametrize(
    "path", ["/sweeps/{}", "/v1/sweeps/{}/report", "/v1/sweeps/{}/recommendation", "/v1/sweeps/{}/confirmations"]
)
def test_the_trial_to_take_is_chosen_once_for_an_answer(client, confirmed_sweep, monkeypatch, path):
    chosen = []

    def counted(*given):
        chosen.append(choose(*given))
        return chosen[-1]

    monkeypatch.setattr(recommend, "choose", counted)
    assert client.get(path.format(confirmed_sweep)).status_code == 200
    assert len(chosen) == 1
