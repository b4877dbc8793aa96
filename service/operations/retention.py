"""What is kept for how long: each rule deletes one kind of what is old, some rows a transaction.

Results are never deleted by age: sweeps, trials, metrics, parameters and loss curves stay until somebody deletes their
sweep. Keys of repeated requests (`service.http.idempotency`) and artifacts (`service.operations.artifacts`) have rules
of their own. `preview` counts by the same selections as `prune` deletes.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.access_models import AuditRecord, Webhook, WebhookDelivery
from service.database.base import Base
from service.database.models import IS_CONFIRMATION, Attempt, Event, Measurement, Sweep, Trial
from service.database.sessions import UNSYNCHRONIZED, Database, now_sql
from service.datasets import datasets
from service.datasets.content_folders import INCOMING
from service.http import idempotency
from service.operations import artifacts
from service.settings import Settings

BATCH_ROWS = 500
DAY_SECONDS = 86_400.0
SAMPLES = "samples_ms"
"""The raw samples in a measurement of latency; what was computed from them stays beside it."""
UPLOAD_DAYS = 1.0
"""After which a file in the folder of uploads belongs to an upload that was cut off with its process."""

REQUESTS, UPLOADS, ARTIFACTS = "repeated requests", "broken-off uploads", "artifacts"
"""The kinds that go besides those of `RULES`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of what goes by age."""

    name: str
    days: Callable[[Settings], float]
    """0: it never goes."""
    old: Callable[[float], sa.Select]
    """The primary keys of what is older than so many days."""
    drop: Callable[[Session, Sequence[Any]], object]
    table: type[Base]
    """Whose rows it changes or deletes."""


def prune(database: Database, settings: Settings) -> Counter[str]:
    """Delete all that is old; return how many of each kind."""
    done: Counter[str] = Counter()
    for name, count in steps(database, settings):
        done[name] += count
    return done


def steps(database: Database, settings: Settings) -> Iterator[tuple[str, int]]:
    """The same bit by bit, a transaction a step: which kind, and how many. Whoever has other work does that between."""
    for rule in RULES:
        days = rule.days(settings)
        while days:
            count = database.write(lambda session, rule=rule, days=days: _step(session, rule, days))
            if count:
                yield rule.name, count
            if count < BATCH_ROWS:
                break
    yield REQUESTS, database.write(idempotency.forget_old)
    yield UPLOADS, _clear_uploads(settings)
    # Last: a store of artifacts that does not answer ends the steps.
    yield ARTIFACTS, artifacts.collect_garbage(database, settings)


def preview(database: Database, settings: Settings) -> Counter[str]:
    """How many of each kind `prune` would delete now."""
    found: Counter[str] = Counter()
    for rule in RULES:
        days = rule.days(settings)
        if days:
            query = sa.select(sa.func.count()).select_from(rule.old(days).subquery())
            found[rule.name] = database.read(lambda session, query=query: session.scalars(query).one())
    found[REQUESTS] = database.read(idempotency.count_old)
    found[UPLOADS] = sum(1 for _ in _broken_off_uploads(settings))
    found[ARTIFACTS] = artifacts.count_garbage(database, settings)
    return found


def _step(session: Session, rule: Rule, days: float) -> int:
    # Another process may prune at the same time: what it has locked is passed by here.
    keys = session.execute(rule.old(days).limit(BATCH_ROWS).with_for_update(of=rule.table, skip_locked=True)).all()
    if keys:
        rule.drop(session, keys)
    return len(keys)


def _clear_uploads(settings: Settings) -> int:
    cleared = 0
    for path in _broken_off_uploads(settings):
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            cleared += 1
    return cleared


def _broken_off_uploads(settings: Settings) -> Iterator[Path]:
    """Files and folders of uploads that were cut off long ago. Those that vanish meanwhile are passed by."""
    half_written = [
        path for kind in ("datasets", "checkpoints") for path in Path(settings.data_dir, kind).glob(f"{INCOMING}*")
    ]
    for path in (*Path(settings.data_dir, datasets.UPLOADS).glob("*"), *half_written):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - UPLOAD_DAYS * DAY_SECONDS:
                yield path


# --- the rules --------------------------------------------------------------------------------------------------------


def _before(days: float) -> sa.ColumnElement[float]:
    return now_sql() - days * DAY_SECONDS


def _old_logs(days: float) -> sa.Select:
    return sa.select(Attempt.trial_id, Attempt.attempt).where(Attempt.ended_at < _before(days), Attempt.log != "")


def _drop_logs(session: Session, keys: Sequence[Any]) -> None:
    chosen = sa.tuple_(Attempt.trial_id, Attempt.attempt).in_([tuple(key) for key in keys])
    session.execute(sa.update(Attempt).where(chosen).values(log=""), execution_options=UNSYNCHRONIZED)


def _old_samples(days: float) -> sa.Select:
    return (
        sa.select(Measurement.trial_id, Measurement.name)
        .join(Trial, Trial.id == Measurement.trial_id)
        .where(Trial.ended_at < _before(days), Measurement.data[SAMPLES].as_string().is_not(None))
    )


def _drop_samples(session: Session, keys: Sequence[Any]) -> None:
    chosen = sa.tuple_(Measurement.trial_id, Measurement.name).in_([tuple(key) for key in keys])
    for row in session.scalars(sa.select(Measurement).where(chosen)):
        row.data = {name: value for name, value in row.data.items() if name != SAMPLES}
    session.flush()


def _old_events(days: float) -> sa.Select:
    # What the scheduler needs to go on, should the sweep be extended, is of the sweep itself and stays.
    worked_in = sa.or_(IS_CONFIRMATION, Sweep.scheduled_sequence >= Sweep.event_counter)
    return (
        sa.select(Event.sweep_id, Event.sequence)
        .join(Sweep, Sweep.id == Event.sweep_id)
        .where(Sweep.ended_at < _before(days), worked_in, Event.kind.not_like("sweep.%"))
    )


def _drop_events(session: Session, keys: Sequence[Any]) -> None:
    chosen = sa.tuple_(Event.sweep_id, Event.sequence).in_([tuple(key) for key in keys])
    session.execute(sa.delete(Event).where(chosen), execution_options=UNSYNCHRONIZED)


def _old_deliveries(days: float) -> sa.Select:
    # What is pending is tried, or has failed, long before; unless its webhook is not enabled.
    over = sa.or_(WebhookDelivery.state != "pending", Webhook.enabled.is_(False))
    return (
        sa.select(WebhookDelivery.id)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(sa.func.coalesce(WebhookDelivery.ended_at, WebhookDelivery.created_at) < _before(days), over)
    )


def _old_records(days: float) -> sa.Select:
    return sa.select(AuditRecord.id).where(AuditRecord.created_at < _before(days))


def _drop_by_id(table: Any) -> Callable[[Session, Sequence[Any]], object]:
    def drop(session: Session, keys: Sequence[Any]) -> None:
        chosen = table.id.in_([key[0] for key in keys])
        session.execute(sa.delete(table).where(chosen), execution_options=UNSYNCHRONIZED)

    return drop


RULES = (
    Rule("logs of attempts", lambda settings: settings.log_days, _old_logs, _drop_logs, Attempt),
    Rule("raw latency samples", lambda settings: settings.sample_days, _old_samples, _drop_samples, Measurement),
    Rule("events of ended sweeps", lambda settings: settings.event_days, _old_events, _drop_events, Event),
    Rule(
        "webhook deliveries",
        lambda settings: settings.delivery_days,
        _old_deliveries,
        _drop_by_id(WebhookDelivery),
        WebhookDelivery,
    ),
    Rule("audit records", lambda settings: settings.audit_days, _old_records, _drop_by_id(AuditRecord), AuditRecord),
)
