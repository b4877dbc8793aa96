"""A sweep over variables of its document, from the document to everything that is told of its trials."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from optuna.distributions import IntDistribution

from layersweep.exports import optuna as optuna_export
from service.app import Services
from service.settings import Settings
from tests.service.sweep_driver import Driver, Outcome, document

RATIO, WIDTH = "variables.ratio", "mlp.ffn_hidden_size"
SHARED: dict[str, Any] = {
    "variables": {"ratio": {"values": [1, 2, 3]}},
    "model": {
        "num_layers": 2,
        "hidden_size": {"values": [32, 64]},
        "attention": {"num_attention_heads": 2},
        # Above 64 the width is the same whatever the ratio.
        "mlp": {"ffn_hidden_size": {"derived": "min(ratio * hidden_size, 64)"}},
    },
    "training": {"learning_rate": 1e-3, "dropout": 0.0},
    "constraints": [],
    "search": {"sampler": "grid", "reuse": True},
    "budget": {"parallel": 1},
}
OF_LAYERS: dict[str, Any] = SHARED | {
    "variables": {"ratio": {"values": [1, 2, 3], "per_layer": True}},
    "model": SHARED["model"]
    | {
        "num_layers": {"min": 1, "max": 3},
        "mlp": {"ffn_hidden_size": {"derived": "ratio * hidden_size", "per_layer": True}},
    },
    "rules": ["layers.0.ratio <= layers.1.ratio"],
    "search": {"sampler": "random", "reuse": False},
}


def measure(configuration: Any) -> Outcome:
    """The latency is that of the widths, the loss falls with them."""
    model = configuration["model"]
    width = sum(value for name, value in model.items() if name.endswith("ffn_hidden_size"))
    return "complete", {"latency_ms_p50": width / 100, "latency_ms_p99": width / 90, "validation_loss": 100 / width}


@pytest.fixture
def driver(client: TestClient, services: Services, settings: Settings) -> Driver:
    driver = Driver(services.database, settings)
    driver.add_dataset()
    return driver


def _post(client: TestClient, changes: dict[str, Any]) -> str:
    answer = client.post("/v1/sweeps", json=document(**changes))
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def _rows(client: TestClient, sweep: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"page_size": 100, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_points_of_one_configuration_are_measured_once(client: TestClient, driver: Driver) -> None:
    sweep = _post(client, SHARED)
    assert client.get(f"/v1/sweeps/{sweep}").json()["space"]["points"] == 6
    assert driver.run_to_the_end(sweep, measure).state == "completed"
    trials = driver.trials(sweep)
    # Of 32: widths 32, 64, 64; of 64: 64, 64, 64.
    assert sorted((trial.parameters["hidden_size"], trial.parameters[WIDTH]) for trial in trials) == [
        (32, 32),
        (32, 64),
        (64, 64),
    ]
    assert not any(
        "ratio" in name
        for trial in trials
        for section in trial.configuration.values()
        for name in cast("Iterable[str]", section)
    )


def test_another_sweep_reuses_a_measurement_whatever_its_variables(client: TestClient, driver: Driver) -> None:
    first = _post(client, SHARED)
    driver.run_to_the_end(first, measure)
    doubled = SHARED["model"] | {"mlp": {"ffn_hidden_size": {"derived": "min(half * hidden_size / 2, 64)"}}}
    second = _post(client, SHARED | {"variables": {"half": {"values": [2, 4]}}, "model": doubled})
    driver.run_to_the_end(second, measure)
    measured = {trial.id for trial in driver.trials(first)}
    assert {trial.reused_from for trial in driver.trials(second)} == measured


def test_it_is_a_parameter_like_any_other_wherever_trials_are_shown(client: TestClient, driver: Driver) -> None:
    sweep = _post(client, OF_LAYERS)
    driver.run(sweep, 20, measure)
    detail = client.get(f"/v1/sweeps/{sweep}").json()
    names = [f"layers.{layer}.variables.ratio" for layer in range(3)]
    assert set(names) <= set(detail["space"]["open_parameters"])
    rows = _rows(client, sweep)
    assert len(rows) >= 15
    for row in rows:
        parameters = row["parameters"]
        for layer in range(parameters["num_layers"]):
            ratio = parameters[names[layer]]
            assert parameters[f"layers.{layer}.{WIDTH}"] == ratio * parameters["hidden_size"]
    kept = _rows(client, sweep, where=f"{names[0]}>=2", sort=f"-{names[0]}")
    assert [row["number"] for row in kept] == [
        row["number"]
        for row in sorted(rows, key=lambda row: (-row["parameters"][names[0]], row["number"]))
        if row["parameters"][names[0]] >= 2
    ]
    text = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"format": "csv"}).text
    head = next(csv.reader(io.StringIO(text)))
    assert [name for name in head if name.endswith("variables.ratio")] == names
    base = f"/v1/sweeps/{sweep}"
    importance = client.get(f"{base}/importance").json()
    assert names[0] in str(importance)
    effect = client.get(f"{base}/effect", params={"parameter": names[0], "metric": "latency_ms_p50"})
    assert effect.status_code == 200, effect.text
    assert client.get(f"{base}/columns", params={"name": names[0]}).status_code == 200
    for page in (
        f"/sweeps/{sweep}",
        f"{base}/report?format=html",
        f"/trials/{rows[0]['trial']}",
        f"{base}/report?format=markdown",
    ):
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert "variables.ratio" in answer.text, page
    study = optuna_export.distribution(detail["document"]["variables"]["ratio"], whole=True)
    assert study == IntDistribution(1, 3)


def test_a_start_names_it_or_is_a_trial_that_has_it(client: TestClient, driver: Driver) -> None:
    first = _post(client, SHARED | {"start_from": [{"hidden_size": 64, "variables": {"ratio": 3}}]})
    driver.run(first, 1, measure)
    trial = driver.trials(first)[0]
    assert (trial.parameters[RATIO], trial.started_from) == (3, "start_from/0")
    second = _post(client, SHARED | {"start_from": [f"trial:{trial.id}"]})
    driver.run(second, 1, measure)
    assert driver.trials(second)[0].parameters == trial.parameters
    third = client.post("/v1/sweeps?validate_only=true", json=document(**SHARED, start_from=["trial:nothing"]))
    assert third.json()["errors"][0]["pointer"] == "/start_from/0"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "surrogate"])
def test_a_sweep_that_is_rebuilt_has_the_same_points(client: TestClient, driver: Driver, sampler: str) -> None:
    changes = OF_LAYERS | {"search": {"sampler": sampler, "reuse": True}}
    whole, rebuilt = (_post(client, changes | {"name": name}) for name in ("whole", "rebuilt"))
    driver.set(rebuilt, project="another")
    driver.run(whole, 14, measure)
    driver.cancel(whole)
    driver.run(rebuilt, 14, measure, rebuild_every=3)
    assert driver.sequence(rebuilt) == driver.sequence(whole)


def test_the_page_and_the_validation_say_what_is_wrong_with_it(client: TestClient, driver: Driver) -> None:
    wrong = document(**SHARED | {"variables": {"ratio": {"values": [1, 2]}, "latency_ms_p50": {"values": [1]}}})
    answer = client.post("/v1/sweeps?validate_only=true", json=wrong)
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["pointer"] == "/variables/latency_ms_p50"
    assert "is a metric" in problem["detail"]
    assert problem["remedy"]
