"""What happened in a sweep, in order: the only place where events are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service import schemas
from service.db import announce, now_sql
from service.errors import NotFound
from service.models import Event, Sweep
from service.notifications import QUEUE, SCHEDULER, sweep_topic


def append(
    session: Session, sweep_id: str, kind: str, *, trial_id: str | None = None, data: dict[str, Any] | None = None
) -> int:
    """Append an event and return its sequence in the sweep.

    The sweep's row stays locked until the transaction ends: sequences appear in order, without gaps.
    Lock trials before; never after.
    """
    sequence = session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id)
        .values(event_counter=Sweep.event_counter + 1)
        .returning(Sweep.event_counter)
        .execution_options(synchronize_session=False)
    )
    if sequence is None:
        raise NotFound(f"there is no sweep {sweep_id}")
    session.execute(
        sa.insert(Event).values(
            sweep_id=sweep_id, sequence=sequence, kind=kind, trial_id=trial_id, data=data or {}, created_at=now_sql()
        )
    )
    announce(session, sweep_topic(sweep_id))
    if kind == "trial.ended" or kind.startswith("sweep."):
        announce(session, SCHEDULER)
    if kind in ("trial.queued", "trial.ended") or kind.startswith("sweep."):
        # There is a trial to claim, or room for one more of the sweep.
        announce(session, QUEUE)
    return sequence


def read(session: Session, sweep_id: str, after: int, limit: int) -> Sequence[Event]:
    """Return at most `limit` events with a sequence above `after`, oldest first."""
    return session.scalars(
        sa.select(Event).where(Event.sweep_id == sweep_id, Event.sequence > after).order_by(Event.sequence).limit(limit)
    ).all()


def to_schema(event: Event) -> schemas.Event:
    """The event as it crosses HTTP."""
    return schemas.Event(
        sequence=event.sequence, kind=event.kind, trial=event.trial_id, data=event.data, created_at=event.created_at
    )
