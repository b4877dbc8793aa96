"""Further trainings that are claimed and finished over HTTP. Nothing is trained: the losses are made up."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Sweep, Trial
from service.http.dependencies import Services
from tests.service.sweep_rows import complete_configuration

CONFIGURATION = complete_configuration(1)


def claim(client: TestClient, services: Services, worker: str) -> dict[str, Any]:
    """A lease; the targets of rows and worker are made to agree, which no user can."""
    key = "onnxruntime 1.32.0 on TestCPU"

    def agree(session: Session) -> None:
        session.query(Trial).update({Trial.target_key: key})
        session.query(Sweep).update({Sweep.target_key: key})

    services.database.write(agree)
    answer = client.post("/v1/leases", json={"worker": worker})
    assert answer.status_code == 200, answer.text
    return answer.json()


def finish(client: TestClient, lease: dict[str, Any], **metrics: float) -> None:
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
