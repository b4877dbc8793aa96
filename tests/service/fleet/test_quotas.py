"""Priorities and quotas over HTTP, and what the queue says of a sweep that waits because of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.database.models import Sweep, Trial
from service.database.sessions import Database
from service.fleet import queue_by_needs, quotas
from service.fleet.schemas import QueueEntry
from service.leases import queue
from tests.service.rows import Rows

PROBE: dict[str, Any] = {
    "name": "probe",
    "task": "probe",
    "model": {"hidden_size": {"values": [64, 128]}, "attention": {"num_attention_heads": 2}},
    "objectives": [{"metric": "latency_ms_p50", "goal": "minimize"}],
    "budget": {"trials": 2},
}


def _entries(database: Database, project: str | None = None) -> list[QueueEntry]:
    return database.read(lambda session: queue_by_needs.entries(session, project, 90))


def _causes(database: Database) -> dict[int, str | None]:
    """Priority -> why nothing takes what has it."""
    return {entry.priority: entry.cause for entry in _entries(database)}


# --- what the queue says ----------------------------------------------------------------------------------------------


def test_a_sweep_says_that_its_project_runs_as_many_as_it_may(rows: Rows) -> None:
    rows.sweep(3)
    worker = rows.worker(slots=8)
    rows.database.write(lambda session: quotas.change(session, "default", {"max_running_trials": 1}).name)
    assert _causes(rows.database) == {0: None}
    rows.database.write(lambda session: queue.claim(session, worker, 30))
    (entry,) = _entries(rows.database)
    assert (entry.cause, entry.queued, entry.running) == ("quota", 2, 1)
    assert entry.waits_for == "1 trial at once is the quota of the project default, and as many run"


def test_a_sweep_says_that_others_come_first(rows: Rows) -> None:
    low, high = rows.sweep(2), rows.sweep(2)
    rows.update(Sweep, high, priority=2)
    worker = rows.worker(slots=1)
    assert _causes(rows.database) == {0: None, 2: None}
    rows.database.write(lambda session: queue.claim(session, worker, 30))
    assert _causes(rows.database) == {0: "priority", 2: "slot"}
    waits_for = next(entry.waits_for for entry in _entries(rows.database) if entry.priority == 0)
    assert waits_for == "1 trial of a higher priority than 0 must begin first"
    # What may not begin anyway keeps nobody waiting.
    rows.update(Sweep, high, effective_parallel=1)
    assert _causes(rows.database) == {0: "slot", 2: "parallel"}
    assert rows.find_sweep(low).running_count == 0


def test_who_comes_first_is_counted_over_projects_and_told_without_their_names(rows: Rows) -> None:
    ours, theirs = rows.sweep(1), rows.sweep(2)
    rows.update(Sweep, theirs, priority=1, project="theirs")
    moved = sa.update(Trial).where(Trial.sweep_id == theirs).values(project="theirs")
    rows.database.write(lambda session: session.execute(moved).rowcount)
    worker = rows.worker(slots=1)
    rows.database.write(lambda session: queue.claim(session, worker, 30))
    (entry,) = _entries(rows.database, "default")
    assert (entry.cause, "theirs" in (entry.waits_for or "")) == ("priority", False)
    assert rows.find_sweep(ours).running_count == 0


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_a_sweep_is_posted_with_a_priority_and_gets_another(client: TestClient) -> None:
    assert client.post("/v1/sweeps", json=PROBE).raise_for_status().json()["priority"] == 0
    made = client.post("/v1/sweeps?priority=3", json=PROBE).raise_for_status().json()
    assert made["priority"] == 3
    path = f"/v1/sweeps/{made['id']}:prioritize"
    assert client.post(path, json={"priority": -2}).raise_for_status().json()["priority"] == -2
    assert "priority -2" in client.get(f"/sweeps/{made['id']}").raise_for_status().text
    for wrong in ({"priority": 11}, {"priority": 1.5}, {"priority": None}, {}):
        assert client.post(path, json=wrong).status_code == 422
    assert client.post("/v1/sweeps?priority=-11", json=PROBE).status_code == 422
    client.post(f"/v1/sweeps/{made['id']}:cancel").raise_for_status()
    assert client.post(path, json={"priority": 1}).status_code == 409


def test_a_project_bounds_the_priorities_of_its_sweeps(client: TestClient) -> None:
    client.patch("/v1/projects/default", json={"max_priority": -1}).raise_for_status()
    made = client.post("/v1/sweeps", json=PROBE).raise_for_status().json()
    assert made["priority"] == -1
    for answer in (
        client.post("/v1/sweeps?priority=0", json=PROBE),
        client.post(f"/v1/sweeps/{made['id']}:prioritize", json={"priority": 5}),
    ):
        assert answer.status_code == 403
        assert answer.json()["errors"][0]["pointer"] == "/priority"


def test_who_may_change_projects_changes_their_quotas(client: TestClient) -> None:
    changed = client.patch("/v1/projects/default", json={"max_running_trials": 4}).raise_for_status().json()
    assert (changed["max_running_trials"], changed["max_priority"]) == (4, None)
    (listed,) = client.get("/v1/projects").raise_for_status().json()["items"]
    assert listed == changed
    lifted = client.patch("/v1/projects/default", json={"max_running_trials": None}).raise_for_status().json()
    assert lifted["max_running_trials"] is None
    assert client.patch("/v1/projects/nowhere", json={}).status_code == 404
    for wrong in ({"max_running_trials": -1}, {"max_priority": 99}, {"max_slots": 1}):
        assert client.patch("/v1/projects/default", json=wrong).status_code == 422
    (record,) = [each for each in client.get("/v1/audit").json()["items"] if each["action"] == "project.change"][:1]
    assert record["subject"] == "default"
