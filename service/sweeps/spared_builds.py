"""Trials that were not built before their training, as a model of the device answered, and what came of them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.constraints import parse_constraint
from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.sweeps.schemas import SparedBuilds


def spared_builds_of(session: Session, sweep: Sweep) -> SparedBuilds | None:
    """Of a sweep with `search.device_model`; None of others."""
    if not sweep.document.get("search", {}).get("device_model"):
        return None
    found = session.execute(
        sa.select(Trial.feasible, Trial.violations).where(
            Trial.sweep_id == sweep.id,
            Trial.predicted.is_not(None),
            Trial.state.in_((TrialState.COMPLETE, TrialState.PRUNED)),
        )
    ).all()
    limits = {text for text in sweep.document.get("constraints", ()) if parse_constraint(text).stage == "hardware"}
    broken = [
        feasible is False and any((violations or {}).get(limit, 0.0) > 0 for limit in limits)
        for feasible, violations in found
    ]
    return SparedBuilds(trials=len(found), broken=sum(broken))
