"""The curve of an attempt: its losses by step, of which no more are kept, or shown, than a picture can hold.

Written by `service.leases.holders` and `service.leases.queue` only, while they hold the lock of the trial's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.json_columns import Losses
from service.database.models import Report
from service.database.sessions import execute_deferred
from service.leases import schemas as lease_schemas
from service.leases import statements as sql

MOST_POINTS = 4_000
"""Points of a curve that are kept; a worker reports a hundred and those with a validation loss."""

SHOWN_POINTS = 1_000
"""Points of each kind that are shown: those with a validation loss, and the others."""

_VALIDATED = Report.values["validation_loss"].as_float().is_not(None)


def store(session: Session, trial_id: str, attempt: int, losses: Sequence[lease_schemas.Losses], time: float) -> None:
    """Store losses by step; what a step was already reported with stays if it is not reported anew.

    A curve of more than MOST_POINTS is thinned evenly along its steps.
    """
    execute_deferred(session)
    steps = {loss.step for loss in losses}
    statement = sa.select(Report).where(*_of(trial_id, attempt), Report.step.in_(steps))
    of_step = {row.step: row for row in session.scalars(statement)}
    for loss in losses:
        values = cast("Losses", loss.model_dump(exclude={"step"}, exclude_none=True))
        known = of_step.get(loss.step)
        if known is None:
            row = Report(trial_id=trial_id, attempt=attempt, step=loss.step, values=values, created_at=time)
            session.add(row)
            of_step[loss.step] = row
        elif known.values | values != known.values:
            known.values = known.values | values
    session.flush()
    points, last = _extent(session, trial_id, attempt)
    if points > MOST_POINTS:
        kept = _spread(trial_id, attempt, last, MOST_POINTS // 4).subquery()
        gone = sa.delete(Report).where(*_of(trial_id, attempt), Report.step.not_in(sa.select(kept.c.step)))
        session.execute(gone, execution_options={"synchronize_session": False})


def stopped_training(session: Session, trial_id: str) -> sql.Row | None:
    """The attempt that a pruner has stopped and whose state is kept, with the `sha256` of that; None without one."""
    return session.connection().execute(sql.STOPPED_TRAINING, {"of_trial": trial_id}).one_or_none()


def continue_stopped(session: Session, trial_id: str, attempt: int) -> None:
    """Let the curve of a new attempt begin with that of the stopped one from whose state it goes on."""
    stopped = stopped_training(session, trial_id)
    if stopped is not None and stopped.attempt < attempt:
        execute_deferred(session)
        given = {"of_trial": trial_id, "attempt_number": attempt, "stopped_attempt": stopped.attempt}
        session.connection().execute(sql.CONTINUE_CURVE, given)


def read(session: Session, trial_id: str, attempt: int) -> list[lease_schemas.CurvePoint]:
    """The curve in the order of its steps; of a long one, points that are spread evenly along it, and the last."""
    statement = sa.select(Report.step, Report.values).where(*_of(trial_id, attempt))
    points, last = _extent(session, trial_id, attempt)
    if points > SHOWN_POINTS:
        statement = _spread(trial_id, attempt, last, SHOWN_POINTS)
    rows = session.execute(statement.order_by(statement.selected_columns["step"]))
    return [lease_schemas.CurvePoint.model_validate({**values, "step": step}) for step, values in rows]


def _of(trial_id: str, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Report.trial_id == trial_id, Report.attempt == attempt


def _extent(session: Session, trial_id: str, attempt: int) -> tuple[int, int]:
    """How many points there are, and the last one's step."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(Report.step), 0)).where(*_of(trial_id, attempt))
    points, last = session.execute(query).one()
    return points, last


def _spread(trial_id: str, attempt: int, last: int, most: int) -> sa.Select[int, Losses]:
    """Step and losses of at most `most` points of each kind, evenly along the curve, and of the last.

    Of one pass over the curve: PostgreSQL joins two quadratically while it has no statistics of a new attempt's rows.
    """
    width = last // most + 1
    place = sa.func.row_number().over(partition_by=[_VALIDATED, Report.step // width], order_by=Report.step)
    placed = sa.select(Report.step, Report.values, place.label("place")).where(*_of(trial_id, attempt)).subquery()
    return sa.select(placed.c.step, placed.c["values"]).where(sa.or_(placed.c.place == 1, placed.c.step == last))
