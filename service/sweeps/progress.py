"""How fast a sweep goes, and when it will be done with its budget."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.states import ENDED_TRIALS, SweepState
from service.database.counts import REPLICATE
from service.database.models import Event, Sweep
from service.database.sessions import now

LAST_EVENTS = 2000
LAST_TRIALS = 20


@dataclass(frozen=True, slots=True)
class ProgressRate:
    per_second: float
    """Trials that ended a second, over the last ones."""
    seconds_left: float
    """Until the budget of trials or of time is used up, if it goes on like this."""


def progress_rate(session: Session, sweep: Sweep) -> ProgressRate | None:
    """The progress rate of a running sweep; None before two trials ended, and if nothing is left to do."""
    ended = sum(int(sweep.counts.get(name, 0)) for state in ENDED_TRIALS for name in (state, f"{REPLICATE}{state}"))
    left = int(sweep.budget.get("trials", 0)) - ended
    if sweep.state != SweepState.ACTIVE or left <= 0:
        return None
    times = list(
        session.scalars(
            sa.select(Event.created_at)
            .where(
                Event.sweep_id == sweep.id,
                Event.sequence > sweep.event_counter - LAST_EVENTS,
                Event.kind == "trial.ended",
            )
            .order_by(Event.sequence.desc())
            .limit(LAST_TRIALS)
        )
    )
    if len(times) < 2 or times[0] <= times[-1]:
        return None
    per_second = (len(times) - 1) / (times[0] - times[-1])
    seconds_left = left / per_second
    limit = sweep.budget.get("wall_seconds")
    if limit is not None and sweep.started_at is not None:
        seconds_left = min(seconds_left, max(0.0, sweep.started_at + limit - now(session)))
    return ProgressRate(per_second, seconds_left)
