"""The outbox of the webhooks, on both databases: with the change or not at all, one sender at a time."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.auth import projects
from service.database.access_models import Webhook, WebhookDelivery
from service.database.sessions import Database
from service.events import webhooks
from service.sweeps import sweeps
from tests.service.rows import Rows

URL = "https://example.com/"


def add(database: Database, **changes: Any) -> str:
    given: dict[str, Any] = {"project": "default", "url": URL, "events": webhooks.EVENTS, "made_by": "", "allowed": []}
    return database.write(lambda session: webhooks.create(session, **given | changes).id)


def outbox(database: Database) -> list[WebhookDelivery]:
    statement = sa.select(WebhookDelivery).order_by(WebhookDelivery.id)
    return database.read(lambda session: list(session.scalars(statement)))


def test_each_change_is_told_in_its_own_transaction(database: Database, rows: Rows) -> None:
    add(database, events=("sweep.paused", "sweep.active", "sweep.completed"))
    sweep = rows.sweep()
    database.write(lambda session: sweeps.pause(session, sweep).id)
    database.write(lambda session: sweeps.resume(session, sweep).id)

    def undone(session: Session) -> None:
        sweeps.end(session, sweep, "completed", "budget_exhausted")
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        database.write(undone)
    assert [row.body["type"] for row in outbox(database)] == ["sweep.paused", "sweep.active"]
    database.write(lambda session: sweeps.end(session, sweep, "completed", "budget_exhausted"))
    last = outbox(database)[-1].body
    assert (last["type"], last["data"]["reason"]) == ("sweep.completed", "budget_exhausted")
    assert last["data"]["sequence"] == rows.find_sweep(sweep).event_counter


def test_a_webhook_hears_of_its_project_and_of_what_it_wants(database: Database, rows: Rows) -> None:
    database.write(lambda session: projects.create(session, "vision").name)
    ours, off = add(database), add(database)
    add(database, project="vision")
    add(database, events=("sweep.failed",))
    database.write(
        lambda session: webhooks.change(session, off, url=None, events=None, enabled=False, allowed=[]).enabled
    )
    sweep = rows.sweep()
    database.write(lambda session: sweeps.cancel(session, sweep).id)
    told = [(row.webhook_id, row.body["type"]) for row in outbox(database)]
    assert told == [(ours, "sweep.created"), (ours, "sweep.cancelled")]


def test_one_process_sends_a_delivery_and_another_only_when_its_time_is_over(database: Database) -> None:
    hook = add(database)
    database.write(lambda session: webhooks.ping(session, hook).id)
    first = database.write(lambda session: webhooks.take(session, [], 60))
    assert first is not None
    assert database.write(lambda session: webhooks.take(session, [], 60)) is None
    assert not database.read(lambda session: webhooks.any_due(session, []))
    # The process that took it has died, and the time that it had is over.
    over = sa.update(WebhookDelivery).values(due_at=1.0)
    database.write(lambda session: session.execute(over).rowcount)
    assert not database.read(lambda session: webhooks.any_due(session, [hook])), "one at a time for each webhook"
    second = database.write(lambda session: webhooks.take(session, [], 60))
    assert second is not None
    assert (second.id, second.tries, second.body) == (first.id, 2, first.body)

    def record(taken: webhooks.Taken, error: str | None) -> str | None:
        return database.write(
            lambda session: webhooks.record_try(session, taken, status=None, error=error, most_tries=2)
        )

    assert record(first, None) is None, "the one that was thought dead changes nothing"
    assert record(second, "it refused") == "failed"
    assert database.write(lambda session: webhooks.take(session, [], 60)) is None


def test_two_processes_on_postgresql_never_take_the_same(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        hook = add(database)
        for _ in range(2):
            database.write(lambda session: webhooks.ping(session, hook).id)
        with Session(database.engine) as one, Session(database.engine) as other:
            mine, theirs = webhooks.take(one, [], 60), webhooks.take(other, [], 60)
            assert mine is not None
            assert theirs is not None
            assert mine.id != theirs.id
    finally:
        database.close()


def test_what_is_deleted_is_not_sent(database: Database) -> None:
    hook = add(database)
    database.write(lambda session: webhooks.ping(session, hook).id)
    database.write(lambda session: webhooks.delete(session, hook))
    assert outbox(database) == []
    assert database.read(lambda session: session.get(Webhook, hook)) is None
