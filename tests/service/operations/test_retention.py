"""What goes by age, and what never does; what goes is deleted alike on both databases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.auth import audit
from service.database.access_models import AuditRecord, IdempotencyKey, WebhookDelivery
from service.database.models import Artifact, Attempt, Event, Measurement, Sweep, Trial
from service.database.sessions import Database
from service.datasets import datasets
from service.events import events, webhooks
from service.http import idempotency
from service.http.dependencies import Services
from service.leases import attempts, holders, queue
from service.leases import schemas as lease_schemas
from service.operations import housekeeping, retention
from service.operations.housekeeping import Housekeeping
from service.settings import Settings
from service.sweeps import sweeps
from tests.service.rows import Rows

ALL = {"log_days": 10, "sample_days": 10, "event_days": 10, "delivery_days": 10, "audit_days": 10}


BOTH = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """An SQLite file; for what is marked with `BOTH`, PostgreSQL too."""
    kind = getattr(request, "param", "sqlite")
    return request.getfixturevalue("postgres_url" if kind == "postgresql" else "migrated_sqlite_url")


@pytest.fixture
def database(settings: Settings) -> Any:
    """The database that the settings name."""
    database = Database(settings.database_url)
    database.upgrade()
    yield database
    database.close()


def _used(database: Database, rows: Rows) -> str:
    """A sweep that has ended with one trial, and everything that goes by age. Returns the trial."""
    hook = {"project": "default", "url": "https://example.com/", "events": ["sweep.completed"], "allowed": []}
    database.write(lambda session: webhooks.create(session, made_by="", **hook).id)
    sweep = rows.sweep(queued=1)
    worker = rows.worker()
    lease = database.write(lambda session: queue.claim(session, worker, 30))
    assert lease is not None
    data = {"samples_ms": [0.1, 0.2], "latency_ms_p50": 0.15}
    body = lease_schemas.LeaseFinish(
        outcome="complete",
        metrics={"latency_ms_p50": 0.15},
        measurements={"latency_samples_ms": data, "parity": {"parity_error": 0.0}},
        log="a line\n",
    )
    database.write(lambda session: holders.finish(session, lease.trial, 1, body).id)
    database.write(lambda session: sweeps.end(session, sweep, "completed", "budget_exhausted"))
    taken = database.write(lambda session: webhooks.take(session, [], 60))
    assert taken is not None
    database.write(lambda session: webhooks.record_try(session, taken, status=204, error=None, most_tries=1))
    named = {"actor": "ana", "token_id": None, "project": None, "action": "x.y", "subject": "x", "request_id": None}
    database.write(lambda session: audit.record(session, **named))
    database.write(
        lambda session: session.execute(sa.update(Sweep).values(scheduled_sequence=Sweep.event_counter)).rowcount
    )
    return lease.trial


def _grow_old(database: Database, days: float) -> None:
    def write(session: Any) -> None:
        for table, columns in (
            (Attempt, ("started_at", "ended_at")),
            (Trial, ("ended_at",)),
            (Sweep, ("ended_at",)),
            (WebhookDelivery, ("created_at", "ended_at")),
            (AuditRecord, ("created_at",)),
        ):
            values = {name: getattr(table, name) - days * 86_400 for name in columns}
            session.execute(sa.update(table).values(values), execution_options={"synchronize_session": False})

    database.write(write)


@BOTH
def test_what_is_old_goes_and_results_stay(database: Database, settings: Settings, rows: Rows) -> None:
    trial = _used(database, rows)
    keeping = Settings(**settings.model_dump() | ALL)
    assert not any(retention.prune(database, keeping).values()), "nothing is old yet"
    _grow_old(database, 9.9)
    assert not any(retention.preview(database, keeping).values())
    _grow_old(database, 0.2)
    expected = {
        "logs of attempts": 1,
        "raw latency samples": 1,
        "events of ended sweeps": 3,
        "webhook deliveries": 1,
        "audit records": 1,
    }
    assert +retention.preview(database, keeping) == expected
    assert +retention.prune(database, keeping) == expected
    assert not any(retention.prune(database, keeping).values()), "it goes once"

    def read(session: Any) -> None:
        row = session.get_one(Trial, trial)
        assert (row.state, row.metrics["latency_ms_p50"]) == ("complete", 0.15)
        assert session.get_one(Attempt, (trial, 1)).log == ""
        assert session.get_one(Measurement, (trial, "latency_samples_ms")).data == {"latency_ms_p50": 0.15}
        assert session.get_one(Measurement, (trial, "parity")).data == {"parity_error": 0.0}
        kinds = [event.kind for event in events.read(session, row.sweep_id, 0, 100)]
        assert kinds == ["sweep.created", "sweep.state"]
        assert session.scalars(sa.select(WebhookDelivery)).all() == []
        assert session.scalars(sa.select(AuditRecord)).all() == []

    database.read(read)


def test_by_default_only_deliveries_go(database: Database, settings: Settings, rows: Rows) -> None:
    _used(database, rows)
    _grow_old(database, 3650)
    assert +retention.prune(database, settings) == {"webhook deliveries": 1}


@BOTH
def test_what_goes_on_is_not_touched(database: Database, settings: Settings, rows: Rows) -> None:
    sweep = rows.sweep(queued=1)
    worker = rows.worker()
    lease = database.write(lambda session: queue.claim(session, worker, 30))
    assert lease is not None
    database.write(lambda session: attempts.append_log(session, lease.trial, 1, "a line"))
    keeping = Settings(**settings.model_dump() | ALL)
    started = sa.update(Attempt).values(started_at=1.0)
    database.write(lambda session: session.execute(started).rowcount)
    hook = {"project": "default", "url": "https://example.com/", "events": ["sweep.failed"], "allowed": []}
    made = database.write(lambda session: webhooks.create(session, made_by="", **hook).id)
    database.write(lambda session: webhooks.ping(session, made).id)
    assert not any(retention.prune(database, keeping).values())
    ended = sa.update(Sweep).where(Sweep.id == sweep).values(state="completed", ended_at=1.0)
    database.write(lambda session: session.execute(ended).rowcount)
    assert retention.preview(database, keeping)["events of ended sweeps"] == 0, "no scheduler has worked them in yet"
    waiting = sa.update(WebhookDelivery).values(created_at=1.0)
    database.write(lambda session: session.execute(waiting).rowcount)
    assert retention.preview(database, keeping)["webhook deliveries"] == 0, "it is still tried"
    off = {"url": None, "events": None, "enabled": False, "allowed": []}
    database.write(lambda session: webhooks.change(session, made, **off).id)
    assert retention.preview(database, keeping)["webhook deliveries"] == 1


def test_much_goes_in_several_transactions(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 3)
    named = {"actor": "ana", "token_id": None, "project": None, "action": "x.y", "subject": "x", "request_id": None}
    database.write(lambda session: [audit.record(session, **named) for _ in range(7)] and None)
    _grow_old(database, 11)
    found = [step for step in retention.steps(database, Settings(**settings.model_dump() | ALL)) if step[1]]
    assert found == [("audit records", 3), ("audit records", 3), ("audit records", 1)]


def test_the_service_does_it_by_itself(database: Database, settings: Settings, rows: Rows) -> None:
    _used(database, rows)
    _grow_old(database, 31)
    housekeeping = Housekeeping(database, settings)
    while housekeeping.collect_garbage():
        pass
    assert database.read(lambda session: session.scalars(sa.select(WebhookDelivery)).all()) == []


def test_pruning_that_failed_is_done_again_soon_and_not_the_next_day(
    database: Database, settings: Settings, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    _used(database, rows)
    _grow_old(database, 31)
    monkeypatch.setattr(housekeeping, "COLLECT_SECONDS", 0.0)

    def fail(*_: object) -> int:
        raise OSError("the database is away")

    keeper = Housekeeping(database, settings)
    with monkeypatch.context() as away:
        away.setattr(retention, "_step", fail)
        assert not keeper.collect_garbage()
    while keeper.collect_garbage():
        pass
    assert database.read(lambda session: session.scalars(sa.select(WebhookDelivery)).all()) == []


def test_a_broken_off_upload_is_cleared_away(database: Database, settings: Settings) -> None:
    folder = datasets.uploads_folder(settings)
    old, new = folder / "old", folder / "new"
    for path in (old, new):
        path.write_bytes(b"half of a file")
    os.utime(old, (1.0, 1.0))
    assert retention.prune(database, settings)["broken-off uploads"] == 1
    assert (old.exists(), new.exists()) == (False, True)


@BOTH
def test_a_preview_counts_all_that_pruning_deletes(database: Database, settings: Settings, rows: Rows) -> None:
    trial = _used(database, rows)
    _grow_old(database, 31)
    old_upload = datasets.uploads_folder(settings) / "old"
    old_upload.write_bytes(b"half of a file")
    os.utime(old_upload, (1.0, 1.0))
    answer = (201, {"id": "x"})
    database.write(lambda session: idempotency.keep(session, "default", "key", "hash", answer))
    asked_long_ago = sa.update(IdempotencyKey).values(created_at=1.0)
    database.write(lambda session: session.execute(asked_long_ago).rowcount)
    off_the_front = {"attempt": 1, "size_bytes": 4, "sha256": "a" * 64, "created_at": 1.0}
    kept = Artifact(trial_id=trial, name="run.py", **off_the_front)
    database.write(lambda session: session.add(kept))
    files = Path(settings.artifacts_url, trial, "1")
    for path in (files / ("a" * 16) / "run.py", files / ("b" * 16) / "run.py"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"kept")
    expected = {"webhook deliveries": 1, "repeated requests": 1, "broken-off uploads": 1, "artifacts": 2}
    assert +retention.preview(database, settings) == expected
    assert +retention.preview(database, settings) == expected, "it deletes nothing"
    assert +retention.prune(database, settings) == expected
    assert not +retention.preview(database, settings)


# --- what somebody deletes --------------------------------------------------------------------------------------------


@BOTH
def test_a_sweep_that_has_ended_is_deleted_with_all_that_is_its_own(
    client: TestClient, services: Services, served_rows: Rows
) -> None:
    trial = _used(services.database, served_rows)
    sweep = served_rows.trial(trial).sweep_id
    going = served_rows.sweep()
    refused = client.delete(f"/v1/sweeps/{going}")
    assert (refused.status_code, "active" in refused.json()["detail"]) == (409, True)
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 404
    for table, column in ((Trial, Trial.sweep_id), (Event, Event.sweep_id)):
        query = sa.select(sa.func.count()).select_from(table).where(column == sweep)
        assert services.database.read(lambda session, query=query: session.scalar(query)) == 0
    for table in (Attempt, Measurement):
        query = sa.select(sa.func.count()).select_from(table)
        assert services.database.read(lambda session, query=query: session.scalar(query)) == 0


def test_a_dataset_in_use_stays_and_one_that_is_not_goes_with_its_files(
    client: TestClient, services: Services, served_rows: Rows
) -> None:
    made = client.post("/v1/datasets", data={"name": "text"}, files={"file": ("t.txt", b"abc " * 400)}).json()
    sweep = served_rows.sweep()
    served_rows.update(Sweep, sweep, dataset_id=made["id"])
    refused = client.delete("/v1/datasets/text")
    assert (refused.status_code, sweep in refused.json()["detail"]) == (409, True)
    folders = [path for path in Path(services.settings.data_dir).rglob("*.npz") if made["sha256"] in str(path)]
    assert folders
    client.post(f"/v1/sweeps/{sweep}:cancel")
    assert client.delete(f"/v1/sweeps/{sweep}").status_code == 204
    assert client.delete("/v1/datasets/text").status_code == 204
    assert not any(path.exists() for path in folders)
