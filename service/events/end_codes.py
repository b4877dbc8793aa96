"""How a sweep ended, as a code: from its row and its trials alone, so that sweeps of older versions have one too."""

from __future__ import annotations

from typing import get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.states import SweepKind, SweepState, TrialState
from service.database.models import Sweep, Trial
from service.events.schemas import EndCode


def end_code(sweep: Sweep, *, feasible: bool) -> EndCode | None:
    """The code; None while the sweep goes on. `feasible`: it has a trial that is complete and keeps the constraints."""
    if sweep.state == SweepState.CANCELLED:
        return "cancelled"
    if sweep.state == SweepState.FAILED:
        used_up = sweep.counts.get(TrialState.FAILED, 0) >= sweep.budget["failures"]
        return "failures" if used_up and sweep.kind is SweepKind.SEARCH else "all_failed"
    if sweep.state != SweepState.COMPLETED:
        return None
    if sweep.kind is SweepKind.CONFIRMATION:
        return "confirmed"
    if not feasible:
        return "none_feasible"
    return next((code for code in get_args(EndCode) if code == sweep.reason), "budget_exhausted")


def has_feasible(session: Session, sweep_id: str) -> bool:
    """Whether a trial of the sweep is complete and keeps the constraints."""
    found = sa.select(Trial.id).where(
        Trial.sweep_id == sweep_id, Trial.state == TrialState.COMPLETE, Trial.feasible.is_(sa.true())
    )
    return session.scalar(found.limit(1)) is not None
