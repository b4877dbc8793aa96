"""What the busy slots of a worker do, as `GET /v1/workers` and the page say it."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Worker
from service.fleet import executions
from service.leases import queue, workers
from service.leases import schemas as lease_schemas
from tests.service.rows import Rows

WAITS = {"waiting_for": "its turn to build on this device", "wait_cause": "build_turn"}


def _claim(client: TestClient, worker: str) -> dict[str, Any]:
    return client.post("/v1/leases", json={"worker": worker}).json()


def _report(client: TestClient, lease: dict[str, Any], **body: Any) -> int:
    return client.post(f"/v1/leases/{lease['trial']}/{lease['attempt']}:report", json=body).status_code


def _listed(client: TestClient) -> dict[str, Any]:
    (worker,) = client.get("/v1/workers").json()["items"]
    return worker


def test_each_busy_slot_says_its_trial_phase_since_when_and_what_it_waits_for(
    client: TestClient, served_rows: Rows
) -> None:
    worker = served_rows.worker(slots=3)
    sweep = served_rows.sweep(2)
    builds, begins = _claim(client, worker), _claim(client, worker)
    assert _report(client, builds, phase="check") == 200
    assert _report(client, builds, phase="build", progress=WAITS) == 200
    first, second = _listed(client)["executions"]
    assert {name: first[name] for name in ("trial", "sweep", "number", "attempt", "phase")} == {
        "trial": builds["trial"],
        "sweep": sweep,
        "number": builds["number"],
        "attempt": 1,
        "phase": "build",
    }
    assert (first["wait_cause"], first["waiting_for"]) == ("build_turn", WAITS["waiting_for"])
    detail = client.get(f"/v1/trials/{builds['trial']}").json()
    assert first["since"] == detail["attempts"][-1]["phases"][-1]["started_at"]
    assert (second["trial"], second["phase"], second["wait_cause"]) == (begins["trial"], None, None)
    assert "waiting for its turn to build on this device" in client.get("/workers").text
    assert _report(client, builds, progress={"waited_seconds": 1.5}) == 200
    assert _listed(client)["executions"][0]["wait_cause"] is None


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        ({"waiting_for": "its turn on this device"}, (None, "its turn on this device")),
        ({"waiting_for": ["x"], "wait_cause": {"a": 1}}, (None, None)),
        ({"waiting_for": "x" * 3000, "wait_cause": "<b>turn"}, (None, "x" * 200)),
    ],
    ids=["an older worker", "no text", "long and unknown"],
)
def test_whatever_a_worker_says_of_a_wait_the_list_is_answered(
    client: TestClient, served_rows: Rows, progress: dict[str, Any], said: tuple[str | None, str | None]
) -> None:
    worker = served_rows.worker(slots=1)
    served_rows.sweep(1)
    assert _report(client, _claim(client, worker), progress=progress) == 200
    (execution,) = _listed(client)["executions"]
    assert (execution["wait_cause"], execution["waiting_for"]) == said
    assert client.get("/workers").status_code == 200


def test_what_runs_for_another_project_is_left_out(rows: Rows) -> None:
    worker = rows.worker(slots=1)
    rows.sweep(1)
    rows.database.write(lambda session: queue.claim_several(session, worker, 30, 1))

    def seen_by(project: str | None) -> dict[str, int]:
        def read(session: Session) -> dict[str, int]:
            items, _ = workers.page(session, alive_seconds=60, only_alive=False, page_size=10, page_token=None)
            return {each: len(found) for each, found in executions.of_workers(session, items, project).items()}

        return rows.database.read(read)

    assert seen_by(None) == seen_by("default") == {worker: 1}
    assert seen_by("another") == {}

    def listed_for(project: str | None) -> lease_schemas.Worker:
        def read(session: Session) -> lease_schemas.Worker:
            items, _ = workers.page(session, alive_seconds=60, only_alive=False, page_size=10, page_token=None)
            return executions.added_to(session, items, project)[0]

        return rows.database.read(read)

    own, others = listed_for("default"), listed_for("another")
    assert (own.busy_slots, own.trials, own.trial) == (1, [own.executions[0].trial], own.executions[0].trial)
    assert (others.busy_slots, others.trials, others.trial) == (1, [], None), "not even its id"


def test_a_device_that_ran_nothing_was_not_busy_and_a_silent_one_has_no_share(
    client: TestClient, served_rows: Rows
) -> None:
    worker = served_rows.worker(slots=2)
    idle = _listed(client)
    assert (idle["device_busy_share"], idle["slots_busy_share"], idle["executions"]) == (0.0, 0.0, [])
    served_rows.update(Worker, worker, last_seen_at=1.0)
    assert _listed(client)["device_busy_share"] is None


USE = {"busy_share": 0.71, "over_seconds": 600.0, "source": "nvml"}


def test_a_worker_says_how_busy_its_device_was(client: TestClient, served_rows: Rows) -> None:
    worker = served_rows.worker(slots=1)
    assert _listed(client)["device_use"] is None
    assert client.post(f"/v1/workers/{worker}:report", json={"device_use": USE}).json() == {"device_use": USE}
    assert _listed(client)["device_use"] == USE
    assert "device used 71 % of the last 10 min (by NVML)" in client.get("/workers").text
    metric = 'layersweep_device_used_share{device_model="Test CPU",source="nvml",worker="worker"} 0.71'
    assert metric in client.get("/metrics").text
    served_rows.update(Worker, worker, device_use=USE | {"at": 1.0})
    assert _listed(client)["device_use"] is None, "long ago"
    assert "layersweep_device_used_share{" not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"busy_share": 1.5}, "/device_use/busy_share"),
        ({"over_seconds": 0}, "/device_use/over_seconds"),
        ({"source": "a guess"}, "/device_use/source"),
        ({"at": 1.0}, "/device_use/at"),
    ],
)
def test_a_use_that_cannot_be_is_refused(
    client: TestClient, served_rows: Rows, changes: dict[str, Any], pointer: str
) -> None:
    worker = served_rows.worker(slots=1)
    answer = client.post(f"/v1/workers/{worker}:report", json={"device_use": USE | changes})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert client.post("/v1/workers/nobody:report", json={"device_use": USE}).status_code == 404
