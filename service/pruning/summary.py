"""What pruning has saved in a sweep, and what it may have lost."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.database.pruning_models import PruningDecision
from service.pruning import schemas
from service.pruning.decisions import PRUNE, SPARE


def summary_of(session: Session, sweep: Sweep) -> schemas.Pruning:
    """The sweep's pruner, and what came of it so far."""
    rows = session.execute(
        sa.select(
            PruningDecision.trial_id,
            PruningDecision.verdict,
            PruningDecision.step,
            PruningDecision.steps,
            PruningDecision.chance,
            Trial.state,
            Trial.pareto_rank,
        )
        .join(Trial, sa.and_(Trial.id == PruningDecision.trial_id, Trial.attempt == PruningDecision.attempt))
        .where(PruningDecision.sweep_id == sweep.id, Trial.state.in_((TrialState.COMPLETE, TrialState.PRUNED)))
        .order_by(PruningDecision.trial_id, PruningDecision.rung)
    ).all()
    budgets = {row.trial_id: row.steps for row in rows}
    stopped = {row.trial_id: row for row in rows if row.verdict == PRUNE and row.state == TrialState.PRUNED}
    spared = {row.trial_id: row for row in rows if row.verdict == SPARE and row.state == TrialState.COMPLETE}
    chances = [row.chance for row in stopped.values() if row.chance is not None]
    in_sweep = sa.select(sa.func.count()).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1)
    front = session.scalar(in_sweep) or 0
    total, lost = sum(budgets.values()), sum(chances)
    return schemas.Pruning(
        pruner=sweep.pruner,
        reason=sweep.pruner_reason,
        judged=len(budgets),
        pruned=len(stopped),
        saved_share=sum(row.steps - row.step for row in stopped.values()) / total if total else None,
        expected_front_loss=lost / (front + lost) if chances and len(chances) == len(stopped) else None,
        spared=len(spared),
        spared_on_front=sum(row.pareto_rank == 1 for row in spared.values()),
    )
