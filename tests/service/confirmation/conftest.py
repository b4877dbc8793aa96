"""Sweeps that can be confirmed, and one that is. Nothing is trained: finishes carry made-up losses."""

from __future__ import annotations

import pytest

from service.confirmation import confirmations
from tests.service.confirmation.finishing import claim, finish
from tests.service.registrations import registration
from tests.service.sweep_rows import TARGET, add_measurement, add_sweep, add_trial, complete_configuration, rank

LOSSES = ((1.0, 3.0), (2.0, 2.0), (3.0, 1.5), (2.5, 2.5))


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
    return client.post("/v1/workers", json=registration("w", device_model="TestCPU")).json()["id"]


@pytest.fixture
def confirmed_sweep(client, services, make_sweep, worker) -> str:
    """Confirmed with three seeds for its two best trials."""
    sweep = make_sweep()
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"candidates": 2}).status_code == 201
    for _ in range(6):
        finish(client, claim(client, services, worker))
    services.database.write(confirmations.end_finished)
    return sweep
