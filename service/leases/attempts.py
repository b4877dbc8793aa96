"""The record of one attempt: its phases with their times, the tail of its log, how it ended.

Written by the modules that write leases only, while they hold the lock of the trial's row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.metrics import PHASE_SECONDS
from service.database.json_columns import PhaseTime
from service.database.models import Attempt
from service.database.sessions import defer, execute_deferred, now_sql
from service.leases import schemas as lease_schemas
from service.leases import worker_reports

LOG_CHARACTERS = 262_144
"""The tail of an attempt's log that is kept."""

_ATTEMPTS = cast("sa.Table", Attempt.__table__)
_THIS = sa.and_(
    _ATTEMPTS.c.trial_id == sa.bindparam("of_trial"),
    _ATTEMPTS.c.attempt == sa.bindparam("attempt_number", type_=sa.Integer),
)
_BEGIN = sa.insert(_ATTEMPTS).values(started_at=now_sql(), phases=[], log="")
_PHASES = sa.select(_ATTEMPTS.c.phases).where(_THIS)
_ENTER = sa.update(_ATTEMPTS).where(_THIS).values(phases=sa.bindparam("all_phases", type_=_ATTEMPTS.c.phases.type))
_RUNNING = sa.select(_ATTEMPTS.c.phases, now_sql()).where(_THIS, _ATTEMPTS.c.outcome.is_(None))
_ENDED = {
    "outcome": sa.bindparam("its_outcome"),
    "reason": sa.bindparam("its_reason"),
    "finish_hash": sa.bindparam("its_hash"),
}
_END = (
    sa.update(_ATTEMPTS)
    .where(_THIS)
    .values(
        **_ENDED,
        ended_at=sa.bindparam("time"),
        phases=sa.bindparam("all_phases", type_=_ATTEMPTS.c.phases.type),
    )
)
_END_WITHOUT_PHASES = (
    sa.update(_ATTEMPTS).where(_THIS, _ATTEMPTS.c.outcome.is_(None)).values(**_ENDED, ended_at=now_sql())
)
_LOG = sa.select(_ATTEMPTS.c.log).where(_THIS)
_STORE_LOG = sa.update(_ATTEMPTS).where(_THIS).values(log=sa.bindparam("whole_log"))
_KEEP_METRICS = (
    sa.update(_ATTEMPTS)
    .where(_THIS)
    .values(early_metrics=sa.bindparam("measured", type_=_ATTEMPTS.c.early_metrics.type))
)
_FINISHED_WITH = sa.select(_ATTEMPTS.c.finish_hash).where(_THIS)


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """Which attempt."""

    trial: str
    number: int


def begin(
    session: Session, trial_id: str, attempt: int, worker_id: str, *, claimed_by: AttemptKey | None = None
) -> None:
    """Record that the attempt runs. `claimed_by`: the attempt whose finish claimed it."""
    row = {"trial_id": trial_id, "attempt": attempt, "worker_id": worker_id}
    claim = {
        "after_trial_id": None if claimed_by is None else claimed_by.trial,
        "after_attempt": None if claimed_by is None else claimed_by.number,
    }
    defer(session, _BEGIN, row | claim)


def finished_with(session: Session, trial_id: str, attempt: int) -> str | None:
    """The hash of the finish that ended the attempt; None if it was not ended by one, or does not exist."""
    execute_deferred(session)
    return session.connection().scalar(_FINISHED_WITH, {"of_trial": trial_id, "attempt_number": attempt})


def keep_early_metrics(session: Session, trial_id: str, attempt: int, metrics: Mapping[str, float]) -> None:
    """Keep what was measured before the training: a pruner compares trials by it."""
    given = {"of_trial": trial_id, "attempt_number": attempt, "measured": dict(metrics)}
    session.connection().execute(_KEEP_METRICS, given)


def end(
    session: Session, trial_id: str, attempt: int, outcome: str, reason: str | None, finish_hash: str | None = None
) -> bool:
    """Record how the attempt ended; False if there is none that runs."""
    execute_deferred(session)
    connection = session.connection()
    running = connection.execute(_RUNNING, {"of_trial": trial_id, "attempt_number": attempt}).one_or_none()
    if running is None:
        return False
    phases, time = running
    ended = _ended(trial_id, attempt, outcome, reason, finish_hash)
    connection.execute(_END, ended | {"time": time, "all_phases": _closed(phases, time)})
    return True


def end_without_phases(
    session: Session, trial_id: str, attempt: int, outcome: str, reason: str | None, finish_hash: str | None
) -> None:
    """The same for an attempt that entered no phase: there is nothing to be read first."""
    defer(session, _END_WITHOUT_PHASES, _ended(trial_id, attempt, outcome, reason, finish_hash))


def _ended(
    trial_id: str, attempt: int, outcome: str, reason: str | None, finish_hash: str | None
) -> dict[str, str | int | None]:
    return {
        "of_trial": trial_id,
        "attempt_number": attempt,
        "its_outcome": outcome,
        "its_reason": reason,
        "its_hash": finish_hash,
    }


def enter_phase(session: Session, trial_id: str, attempt: int, phase: lease_schemas.Phase, time: float) -> None:
    """Close the phase that runs and begin the next. Raises UnprocessableError if it does not follow."""
    execute_deferred(session)
    connection = session.connection()
    phases = connection.execute(_PHASES, {"of_trial": trial_id, "attempt_number": attempt}).scalar_one()
    worker_reports.check_phase([each["phase"] for each in phases], phase)
    phases = [*_closed(phases, time), {"phase": phase, "started_at": time, "seconds": 0.0}]
    connection.execute(_ENTER, {"of_trial": trial_id, "attempt_number": attempt, "all_phases": phases})


def entered_phases(session: Session, trial_id: str, attempt: int) -> list[str]:
    """The phases that the attempt has entered, in their order."""
    execute_deferred(session)
    given = {"of_trial": trial_id, "attempt_number": attempt}
    phases = session.connection().execute(_PHASES, given).scalar_one()
    return [each["phase"] for each in phases]


def append_log(session: Session, trial_id: str, attempt: int, text: str) -> None:
    """Append to the log, of which the tail is kept."""
    if not text:
        return
    execute_deferred(session)
    connection = session.connection()
    log = connection.execute(_LOG, {"of_trial": trial_id, "attempt_number": attempt}).scalar_one()
    separator = "" if not log or log.endswith("\n") else "\n"
    whole = f"{log}{separator}{text}"[-LOG_CHARACTERS:]
    connection.execute(_STORE_LOG, {"of_trial": trial_id, "attempt_number": attempt, "whole_log": whole})


def _closed(phases: list[PhaseTime], time: float) -> list[PhaseTime]:
    """The phases, of which the last is over."""
    if not phases:
        return []
    *before, last = phases
    seconds = max(0.0, time - last["started_at"])
    # A transaction that the database has run again counts twice: so seldom that a histogram does not show it.
    PHASE_SECONDS.labels(last["phase"]).observe(seconds)
    return [*before, {**last, "seconds": seconds}]
