"""The record of one attempt: its phases with their times, its losses, the tail of its log, how it ended.

Written by `service.queue` only, while it holds the lock of the trial's row.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service import schemas
from service.models import Attempt, Report

LOG_CHARACTERS = 262_144
"""The tail of an attempt's log that is kept."""


def begin(session: Session, trial_id: str, attempt: int, worker_id: str, time: float) -> None:
    """Record that the attempt runs."""
    session.add(Attempt(trial_id=trial_id, attempt=attempt, worker_id=worker_id, started_at=time, phases=[]))
    session.flush()


def find(session: Session, trial_id: str, attempt: int) -> Attempt | None:
    """The attempt as the database has it now."""
    return session.get(Attempt, (trial_id, attempt), populate_existing=True)


def end(session: Session, trial_id: str, attempt: int, outcome: str, reason: str | None, time: float) -> bool:
    """Record how the attempt ended; False if there is none that runs."""
    row = session.get(Attempt, (trial_id, attempt))
    if row is None or row.outcome is not None:
        return False
    _close_phase(row, time)
    row.outcome, row.reason, row.ended_at = outcome, reason, time
    session.flush()
    return True


def enter_phase(row: Attempt, phase: schemas.Phase, time: float) -> None:
    """Close the phase that runs and begin the next."""
    _close_phase(row, time)
    row.phases = [*row.phases, {"phase": phase, "started_at": time, "seconds": 0.0}]


def append_log(row: Attempt, text: str) -> None:
    """Append to the log, of which the tail is kept."""
    if text:
        separator = "" if not row.log or row.log.endswith("\n") else "\n"
        row.log = f"{row.log}{separator}{text}"[-LOG_CHARACTERS:]


def store_losses(session: Session, trial_id: str, attempt: int, losses: Sequence[schemas.Losses], time: float) -> None:
    """Store losses by step; what a step was already reported with stays where it is not reported anew."""
    steps = {loss.step for loss in losses}
    statement = sa.select(Report).where(Report.trial_id == trial_id, Report.attempt == attempt, Report.step.in_(steps))
    of_step = {row.step: row for row in session.scalars(statement)}
    for loss in losses:
        values = loss.model_dump(exclude={"step"}, exclude_none=True)
        known = of_step.get(loss.step)
        if known is None:
            row = Report(trial_id=trial_id, attempt=attempt, step=loss.step, values=values, created_at=time)
            session.add(row)
            of_step[loss.step] = row
        elif known.values | values != known.values:
            known.values = known.values | values
    session.flush()


def _close_phase(row: Attempt, time: float) -> None:
    if row.phases:
        *before, last = row.phases
        row.phases = [*before, {**last, "seconds": max(0.0, time - last["started_at"])}]
