"""The sliders of a sweep's page: other limits and preferences, as the API would be asked."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.http.dependencies import Services
from tests.service.pages import page
from tests.service.sweep_rows import add_sweep, add_trial, rank


def fill(session: Session) -> str:
    sweep = add_sweep(session)
    trials = [
        add_trial(session, sweep, number, {"latency_ms_p50": 1.0 + number, "validation_loss": loss})
        for number, loss in enumerate((3.0, 2.1, 2.0, 1.9))
    ]
    rank(session, sweep, trials)
    return sweep.id


@pytest.fixture
def sweep(services: Services) -> str:
    return f"/sweeps/{services.database.write(fill)}"


def recommended(text: str) -> str:
    (number,) = re.findall(r'<p class="lead">.*?>Trial (\d+)<', text)
    return str(number)


def test_sliders_are_read_as_what_the_api_is_asked(client: TestClient, sweep: str) -> None:
    assert recommended(page(client, sweep)) == "1"
    sliders = {"limit.latency_ms_p50": "10", "limit.validation_loss": "100", "weight.validation_loss": "1"}
    headers = {"HX-Request": "true", "HX-Target": "div#sweep-results"}
    answer = client.get(sweep, params=sliders, headers=headers)
    assert recommended(answer.text) == "0"
    assert answer.headers["HX-Replace-Url"] == f"{sweep}?within=latency_ms_p50%3A0.3"
    assert "1 of the front's 4 trials" in answer.text
    assert 'value="10" aria-valuetext="at most 1.3 ms"' in answer.text
    assert recommended(page(client, f"{sweep}?weight.validation_loss=4")) != "0"
    assert "weight=validation_loss%3A4" in page(client, f"{sweep}?weight.validation_loss=4")


def test_limits_that_nothing_keeps_say_so_in_place(client: TestClient, sweep: str) -> None:
    text = page(client, f"{sweep}?limit.latency_ms_p50=0&limit.validation_loss=0")
    assert "No trial is within these limits." in text
    assert "the closest, has" in text


def test_what_is_no_position_of_a_slider_is_refused(client: TestClient, sweep: str) -> None:
    for wrong in ("far", "-1", "101", "nan", ""):
        assert "give a number" in page(client, f"{sweep}?limit.latency_ms_p50={wrong}", status=422)
    assert "weight" in page(client, f"{sweep}?weight.beauty=2", status=422)
