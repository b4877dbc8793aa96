"""The trials that wait to be queued again, read of the rows as of the last event that was worked in."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from layers.space.document import SweepDocument
from layers.space.document_fields import Budget
from service.common.states import TrialState
from service.database.json_columns import SweepExtended
from service.database.models import Event, Sweep, Trial
from service.pruning.promoted import IS_STOPPED
from service.scheduling.sweep_state import History


def load(session: Session, sweep: Sweep, history: History) -> None:
    """Say in the history what is to be tried again."""
    if history.failed:
        history.to_retry = _failed_before_extension(session, sweep) & history.failed.keys()
    if history.pruned:
        history.to_promote = _promoted(session, sweep) & history.pruned.keys()


def budget_of(session: Session, sweep: Sweep, document: SweepDocument) -> Budget:
    """The budget as of the last event that was worked in: asking depends on it, and so must a rebuilt study."""
    extension: SweepExtended | None = session.scalar(_last_extension(sweep, Event.data))
    return document.budget.copy() if extension is None else extension["budget"]


def _failed_before_extension(session: Session, sweep: Sweep) -> set[str]:
    """The failed trials that had failed when the last extension was worked in."""
    extended = session.scalar(_last_extension(sweep, Event.sequence))
    if extended is None:
        return set()
    failed = sa.select(Trial.id).where(
        Trial.sweep_id == sweep.id,
        Trial.state == TrialState.FAILED,
        Trial.id.not_in(_named_after(sweep, extended, "trial.ended")),
    )
    return set(session.scalars(failed))


def _promoted(session: Session, sweep: Sweep) -> set[str]:
    """The pruned trials whose promotion was worked in, and that were not queued again yet."""
    promoted = sa.select(Trial.id).where(
        Trial.sweep_id == sweep.id,
        Trial.promoted,
        IS_STOPPED,
        Trial.id.not_in(_named_after(sweep, sweep.scheduled_sequence, "trial.promoted")),
    )
    return set(session.scalars(promoted))


def _named_after(sweep: Sweep, sequence: int, kind: str) -> sa.Select[Any]:
    """The trials of later events. Those of a sweep that ended long ago are deleted: what is asked for came after."""
    return sa.select(Event.trial_id).where(
        Event.sweep_id == sweep.id, Event.sequence > sequence, Event.kind == kind, Event.trial_id.is_not(None)
    )


def _last_extension(sweep: Sweep, column: InstrumentedAttribute[Any]) -> sa.Select[Any]:
    return (
        sa.select(column)
        .where(Event.sweep_id == sweep.id, Event.kind == "sweep.extended", Event.sequence <= sweep.scheduled_sequence)
        .order_by(Event.sequence.desc())
        .limit(1)
    )
