"""A sweep over several shapes, from its document to trials that are judged, reused and confirmed at each."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import Services
from service.settings import Settings
from service.sweeps import drafts, estimates
from tests.service.sweep_driver import Driver, Outcome, document
from tests.service.sweep_rows import add_sweep, add_trial

# The first one comes last in the alphabet, and is the longer word: no database keeps such an order of a mapping.
SHAPES = {"zero_latency": {"batch_size": 1, "sequence_length": 16}, "bulk": {"batch_size": 4, "sequence_length": 32}}
SWEPT: dict[str, Any] = {
    "model": {
        "num_layers": {"values": [1, 2]},
        "hidden_size": {"values": [32, 64]},
        "attention": {"num_attention_heads": 2},
    },
    "objectives": [{"metric": "latency_ms_p50"}, {"metric": "memory_bytes@bulk"}],
    "constraints": ["flops@bulk <= 1e8", "latency_ms_p50@bulk <= 500"],
    "training": {"learning_rate": 1e-3, "dropout": 0.0},
    "search": {"sampler": "grid", "reuse": True},
    "budget": {"parallel": 1},
}


def written(**changes: Any) -> dict[str, Any]:
    made = document(**SWEPT | changes)
    # In place of the one shape of the document of all tests.
    made["inference"] = {"shapes": SHAPES}
    return made


def measure(configuration: Any) -> Outcome:
    """Latency by depth, memory by width, at each shape."""
    metrics: dict[str, float] = {}
    for shape in configuration["shapes"]:
        name, batch = shape["name"], shape["batch_size"]
        metrics[f"latency_ms_p50@{name}"] = 100.0 * batch * configuration["model"]["num_layers"]
        metrics[f"memory_bytes@{name}"] = 1000.0 * batch / configuration["model"]["hidden_size"]
    return "complete", metrics


@pytest.fixture
def driver(client: TestClient, services: Services, settings: Settings) -> Driver:
    driver = Driver(services.database, settings)
    driver.add_dataset()
    return driver


def _post(client: TestClient, made: dict[str, Any]) -> str:
    answer = client.post("/v1/sweeps", json=made)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_a_trial_is_judged_and_reused_at_its_shapes(client: TestClient, driver: Driver) -> None:
    sweep = _post(client, written())
    shown = client.get(f"/v1/sweeps/{sweep}").json()["document"]
    assert [shape["name"] for shape in shown["inference"]["shapes"]] == list(SHAPES), "in the order of the document"
    assert [each["metric"] for each in shown["objectives"]] == ["latency_ms_p50@zero_latency", "memory_bytes@bulk"]

    assert driver.run_to_the_end(sweep, measure).state == "completed"
    trials = driver.trials(sweep)
    assert len(trials) == 4
    for trial in trials:
        assert [shape["name"] for shape in trial.configuration.get("shapes", [])] == list(SHAPES)
        assert trial.configuration["inference"]["batch_size"] == 1, "of several shapes the first"
        # Four times as many sequences, each twice as long: what attention costs grows faster than that.
        assert trial.metrics["flops@bulk"] > 8 * trial.metrics["flops@zero_latency"]
        assert trial.feasible is (trial.configuration["model"]["num_layers"] == 1), trial.reason

    again = _post(client, written(constraints=[]))
    driver.run_to_the_end(again, measure)
    assert {trial.reused_from for trial in driver.trials(again)} == {trial.id for trial in trials}
    other = written(constraints=[])
    other["inference"] = {"shapes": {**SHAPES, "bulk": {"batch_size": 3, "sequence_length": 32}}}
    elsewhere = _post(client, other)
    driver.run_to_the_end(elsewhere, measure)
    assert not any(trial.reused_from for trial in driver.trials(elsewhere)), "another set of shapes is another key"


def test_a_worker_may_leave_out_the_first_shape_and_name_no_other(client: TestClient, driver: Driver) -> None:
    sweep = _post(client, written(objectives=[{"metric": "latency_ms_p50"}], constraints=[]))
    driver.worker = driver.add_worker()
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    assert lease.metrics_in_use == ["latency_ms_p50@zero_latency"]
    finish = f"/v1/leases/{lease.trial}/{lease.attempt}:finish"
    for metrics, says in (
        ({"latency_ms_p50@foo": 1.0}, "latency_ms_p50@bulk"),
        ({"validation_loss@bulk": 1.0}, "write validation_loss"),
    ):
        refused = client.post(finish, json={"outcome": "complete", "metrics": metrics})
        assert refused.status_code == 422, refused.text
        assert says in refused.text
    accepted = client.post(finish, json={"outcome": "complete", "metrics": {"latency_ms_p50": 2.5}})
    assert accepted.status_code == 200, accepted.text
    assert driver.trials(sweep)[0].metrics["latency_ms_p50@zero_latency"] == 2.5


def test_each_shape_counts_in_the_estimate_of_a_sweep(client: TestClient, driver: Driver, services: Services) -> None:
    def fill(session: Any) -> None:
        sweep = add_sweep(session)
        for number in range(3):
            training = {"steps": 1000, "batch_size": 16, "sequence_length": 16}
            configuration = {"inference": {"batch_size": 1, "sequence_length": 16}, "training": training}
            executed: dict[str, Any] = {
                "configuration": configuration,
                "attempt": 1,
                "target_key": "onnxruntime 1 on CPU",
            }
            metrics = {"flops": 1e9, "train_seconds": 0.0, "device_seconds": 5.0}
            add_trial(session, sweep, number, metrics, **executed)

    services.database.write(fill)
    prepared = drafts.prepare(services.database, written(constraints=[]))
    found = services.database.read(lambda session: estimates.estimate(session, prepared, alive_seconds=90))
    assert found is not None
    assert found.trial_seconds == pytest.approx(10.0, rel=0.01), "5 s a shape"
