"""What happened in a sweep, in order: the only place where events are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.notifications import QUEUE, SCHEDULER, sweep_topic
from service.database.json_columns import EventData
from service.database.models import Event, Sweep
from service.database.sessions import announce, defer, execute_deferred, now_sql
from service.errors import NotFoundError
from service.events import schemas as event_schemas
from service.events import webhooks
from service.events.schemas import EventKind

_SWEEPS, _EVENTS = (cast("sa.Table", model.__table__) for model in (Sweep, Event))

_TAKE_SEQUENCES = (
    sa.update(_SWEEPS)
    .where(_SWEEPS.c.id == sa.bindparam("of_sweep"))
    .values(event_counter=_SWEEPS.c.event_counter + sa.bindparam("number_of_events", type_=sa.Integer))
    .returning(_SWEEPS.c.event_counter)
)
_INSERT = sa.insert(_EVENTS).values(created_at=now_sql())


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no sequence yet."""

    kind: EventKind
    trial_id: str | None
    data: EventData


def append(session: Session, sweep_id: str, kind: EventKind, *, data: EventData, trial_id: str | None = None) -> int:
    """Append an event and return its sequence in the sweep.

    The sweep's row stays locked until the transaction ends: sequences appear in order, without gaps. Whoever locks
    trials of it too has locked the sweep before them (`service.leases.row_locks`).
    """
    return append_all(session, sweep_id, [NewEvent(kind, trial_id, data)])


def append_all(session: Session, sweep_id: str, new: Sequence[NewEvent]) -> int:
    """Append events, of which there is at least one, in this order; return the sequence of the last."""
    parameters = {"of_sweep": sweep_id, "number_of_events": len(new)}
    newest = session.connection().scalar(_TAKE_SEQUENCES, parameters)
    if newest is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    write(session, sweep_id, newest, new)
    return newest


def write(session: Session, sweep_id: str, newest: int, new: Sequence[NewEvent]) -> None:
    """Write events whose sequences, up to `newest`, this transaction has taken from `Sweep.event_counter` by itself."""
    first = newest - len(new) + 1
    rows = [
        {
            "sweep_id": sweep_id,
            "sequence": first + position,
            "kind": event.kind,
            "trial_id": event.trial_id,
            "data": event.data,
        }
        for position, event in enumerate(new)
    ]
    defer(session, _INSERT, *rows)
    for position, event in enumerate(new):
        if event.kind in webhooks.TOLD_OF:
            execute_deferred(session)
            webhooks.enqueue(session, sweep_id, first + position, event.kind, event.data)
    _announce(session, sweep_id, {event.kind for event in new})


def read(session: Session, sweep_id: str, after: int, limit: int) -> Sequence[Event]:
    """Return at most `limit` events with a sequence above `after`, oldest first."""
    return session.scalars(
        sa.select(Event).where(Event.sweep_id == sweep_id, Event.sequence > after).order_by(Event.sequence).limit(limit)
    ).all()


def to_schema(event: Event) -> event_schemas.Event:
    """The event as it crosses HTTP."""
    return event_schemas.Event(
        sequence=event.sequence,
        kind=event.kind,
        trial=event.trial_id,
        data=event.data,
        created_at=event.created_at,
    )


def _announce(session: Session, sweep_id: str, kinds: Iterable[str]) -> None:
    announce(session, sweep_topic(sweep_id))
    for kind in kinds:
        is_of_sweep = kind.startswith("sweep.")
        if is_of_sweep or kind in ("trial.ended", "trial.promoted"):
            announce(session, SCHEDULER)
        if is_of_sweep or kind in ("trial.queued", "trial.ended"):
            # There is a trial to claim, or room for one more of the sweep.
            announce(session, QUEUE)
