"""Trials beside one another, and sweeps beside one another."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Trial
from service.http.dependencies import Services
from tests.service.pages import page
from tests.service.sweep_rows import (
    TARGET,
    add_attempt,
    add_measurement,
    add_sweep,
    add_trial,
    add_worker,
    complete_configuration,
    rank,
)


def fill(session: Session, name: str = "one", faster: float = 1.0, **changes: Any) -> str:
    sweep = add_sweep(session, name=name, **changes)
    trials: list[Trial] = []
    for number in range(4):
        metrics = {"latency_ms_p50": (2.0 + number) * faster, "validation_loss": 3.0 - number}
        metrics |= {"parameter_count": 1000.0, "latency_ms_p99": 4.0 + number / 1000, "build_seconds": 1.0 + number}
        parameters, configuration = {"num_layers": number + 1}, complete_configuration(number + 1)
        trials.append(add_trial(session, sweep, number, metrics, parameters=parameters, configuration=configuration))
    rank(session, sweep, trials)
    worker = add_worker(session, name)
    for trial in trials[:2]:
        add_attempt(session, trial, worker)
        noise = {"samples_ms": [1.0], "environment": {"median_half_width": 0.05}}
        add_measurement(session, trial, "latency_samples_ms", noise)
    return sweep.id


@pytest.fixture
def compared(services: Services) -> str:
    return f"/sweeps/{services.database.write(fill)}/compare"


def table(text: str, caption: str) -> dict[str, list[str]]:
    """Row head -> texts of the cells, of the table with this caption."""
    (found,) = re.findall(rf'<caption class="unseen">{caption}</caption>(.*?)</table>', text, re.DOTALL)
    rows = re.findall(r'<th scope="row"[^>]*>((?:[^<]|<wbr>)+)</th>(.*?)</tr>', found, re.DOTALL)
    return {
        name.replace("<wbr>", ""): [
            re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells, re.DOTALL)
        ]
        for name, cells in rows
    }


def test_objectives_come_first_and_what_is_noise_is_folded(client: TestClient, compared: str) -> None:
    text = page(client, compared, trial=["1", "0"])
    objectives = table(text, "Objectives of the trials")
    assert list(objectives) == ["latency p50", "validation loss"]
    assert objectives["latency p50"] == ["3 ms +50%", "2 ms"]
    assert table(text, "Parameters in which the trials differ") == {"num_layers": ["2", "1"]}
    assert list(table(text, "Metrics in which the trials differ")) == ["build time"]
    alike = table(text, "Metrics that are the same")
    assert "parameters" in alike
    assert alike["latency p99"][0].endswith("within noise")
    assert text.index("Objectives of the trials") < text.index("Parameters in which") < text.index('id="the-rest"')
    assert 'id="the-rest"' not in page(client, compared, trial=["1", "0"], differing="true")


def test_a_long_name_breaks_after_a_dot_or_an_underscore(client: TestClient, compared: str) -> None:
    text = page(client, compared, trial=["1", "0"])
    assert '<th scope="row">attention.<wbr>num_<wbr>attention_<wbr>heads</th>' in text


def test_the_curves_of_trials_lie_over_one_another(client: TestClient, compared: str) -> None:
    text = page(client, compared, trial=["0", "1"])
    picture = text[text.index('aria-label="Validation loss of each trial by step"') :]
    assert '<g class="line series-0"><path d="M' in picture
    assert '<g class="line series-1"><path d="M' in picture
    assert "Validation loss of each trial" not in page(client, compared, trial=["2", "3"])


def test_two_to_ten_trials_are_compared(client: TestClient, compared: str) -> None:
    for numbers in ([], ["1"], [str(number) for number in range(11)]):
        assert "choose from 2 to 10" in page(client, compared, status=422, trial=numbers)
    assert "Not found" in page(client, compared, status=404, trial=["1", "99"])


def test_sweeps_are_compared_with_what_they_have_in_common(client: TestClient, services: Services) -> None:
    one = services.database.write(lambda session: fill(session, "on a CPU", target=TARGET))
    other_device = TARGET | {"device_model": "TestGPU"}
    two = services.database.write(lambda session: fill(session, "on a GPU", 0.5, target=other_device))
    text = page(client, "/compare", sweep=[one, two])
    assert table(text, "What the sweeps are") == {
        "device": ["onnxruntime 1.32.0 on TestCPU 3000", "onnxruntime 1.32.0 on TestGPU"]
    }
    assert table(text, "The best value of each objective")["latency p50"] == ["2 ms +100%", "1 ms"]
    assert 'aria-label="The fronts of the sweeps"' in text
    assert "4 configurations are complete in on a CPU and on a GPU." in text
    assert "latency p50 × 0.5," in text
    chosen = page(client, "/compare", sweep=[one])
    assert "Choose two sweeps or more" in chosen
    assert f'<option value="{two}">on a GPU' in chosen


def test_what_one_sweep_varies_and_another_fixes_has_a_value_in_both(client: TestClient, services: Services) -> None:
    def fixed(session: Session) -> str:
        sweep = add_sweep(session, name="fixed")
        metrics = {"latency_ms_p50": 2.0, "validation_loss": 1.0}
        configuration = complete_configuration(7)
        rank(session, sweep, [add_trial(session, sweep, 0, metrics, parameters={}, configuration=configuration)])
        return sweep.id

    one, two = services.database.write(fill), services.database.write(fixed)
    found = table(page(client, "/compare", sweep=[one, two]), "Parameters of the recommended trials")
    assert found["num_layers"][1] == "7", found


def test_losses_of_two_datasets_are_not_called_better(client: TestClient, services: Services) -> None:
    one = services.database.write(lambda session: fill(session, "one"))
    dataset = client.get("/v1/datasets").json()["items"][0]["id"]
    two = services.database.write(lambda session: fill(session, "two", 0.5, dataset_id=dataset))
    text = page(client, "/compare", sweep=[one, two])
    assert "validation loss: of different datasets" in text
    assert table(text, "The best value of each objective")["validation loss"] == ["0 nats", "0 nats"]


def test_a_sweep_that_cannot_be_seen_cannot_be_compared(client: TestClient, services: Services) -> None:
    one = services.database.write(lambda session: fill(session, "one"))
    two = services.database.write(lambda session: fill(session, "two", project="other"))
    made = client.post("/v1/tokens", json={"name": "reader", "scopes": ["read"], "project": "default"})
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    assert client.get("/compare", params={"sweep": [one]}, headers=headers).status_code == 200
    assert client.get("/compare", params={"sweep": [one, two]}, headers=headers).status_code == 404
    assert two not in client.get("/compare", params={"sweep": [one]}, headers=headers).text
