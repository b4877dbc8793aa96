"""Sweeps that can be confirmed, and one that is. Nothing is trained: finishes carry made-up losses."""

from __future__ import annotations

import pytest

from service.confirmation import confirmations
from service.database.models import Trial
from tests.service.sweep_rows import TARGET, add_measurement, add_sweep, add_trial, complete_configuration, rank

LOSSES = ((1.0, 3.0), (2.0, 2.0), (3.0, 1.5), (2.5, 2.5))
CONFIGURATION = complete_configuration(1)


@pytest.fixture
def register(client):
    def register(name: str, test: str) -> str:
        text = "".join(f"line {number} of the text\n" for number in range(400)).encode()
        answer = client.post("/v1/datasets", data={"name": name, "test": test}, files={"file": ("t.txt", text)})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    return register


@pytest.fixture
def make_sweep(services, register):
    def make(name: str = "letters", test: str = "0.2", state: str = "completed", **changes) -> str:
        dataset = register(name, test)

        def fill(session):
            document = {"constraints": ["latency_ms_p50 <= 2.9"], "task": "causal_lm"}
            row = {"dataset_id": dataset, "target": TARGET, "target_key": TARGET["key"]} | changes
            sweep = add_sweep(session, document=document, state=state, **row)
            trials = []
            for number, (latency, loss) in enumerate(LOSSES):
                metrics = {"latency_ms_p50": latency, "validation_loss": loss, "parameter_count": 100.0 - number}
                metrics["generalization_gap"] = 0.01 * number
                configuration = complete_configuration(number + 1)
                feasible = latency <= 2.9
                trial = add_trial(session, sweep, number, metrics, configuration=configuration, feasible=feasible)
                trials.append(trial)
                along = {"loss_sums": [loss * 9, loss * 11], "weight_sums": [10, 10]}
                add_measurement(session, trial, "loss_blocks", {"validation": along})
            rank(session, sweep, trials)
            return sweep.id

        return services.database.write(fill)

    return make


@pytest.fixture
def worker(client) -> str:
    body = {
        "name": "w",
        "device": {"kind": "cpu", "uuid": "cpu", "model": "TestCPU", "memory_bytes": 2**33},
        "targets": [
            {
                "runtime": "onnxruntime",
                "version": "1.32.0",
                "device_model": "TestCPU",
                "opset": 23,
                "dtypes": ["float32"],
                "device_memory_bytes": 2**33,
            }
        ],
    }
    return client.post("/v1/workers", json=body).json()["id"]


def claim(client, services, worker) -> dict:
    """A lease; the targets of rows and worker are made to agree, which no user can."""
    key = "onnxruntime 1.32.0 on TestCPU"
    services.database.write(lambda session: session.query(Trial).update({Trial.target_key: key}))
    answer = client.post("/v1/leases", json={"worker": worker})
    assert answer.status_code == 200, answer.text
    return answer.json()


def finish(client, lease, **metrics) -> None:
    seed = lease["configuration"]["training"]["seed"]
    test = 2.1 + (seed - 1002) * 0.02
    blocks = {"loss_sums": [9 * test, 11 * test, 10 * test], "weight_sums": [10, 10, 10]}
    tested = {"test_loss": test} if "test" in lease["dataset"]["parts"] else {}
    body = {
        "outcome": "complete",
        "metrics": {"latency_ms_p50": 2.0, "validation_loss": test - 0.05} | tested | metrics,
        "measurements": {"loss_blocks": {"validation": blocks, "test": blocks}},
    }
    answer = client.post(f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish", json=body)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def confirmed_sweep(client, services, make_sweep, worker) -> str:
    """Confirmed with three seeds for its two best trials."""
    sweep = make_sweep()
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"candidates": 2}).status_code == 201
    for _ in range(6):
        finish(client, claim(client, services, worker))
    services.database.write(confirmations.end_finished)
    return sweep
