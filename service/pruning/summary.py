"""What pruning has saved in a sweep, and what it may have lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.space.document_fields import Objective
from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.database.pruning_models import PruningDecision
from service.leases.statements import Row
from service.pruning import schemas
from service.pruning.choice import NONE, objective_of_training
from service.pruning.decisions import PRUNE, SPARE, costs_of, sign_of
from service.pruning.fronts import bound_of


def summary_of(session: Session, sweep: Sweep) -> schemas.Pruning:
    """The sweep's pruner, and what came of it so far."""
    rows = [] if sweep.pruner == NONE else _decisions(session, sweep)
    budgets = {row.trial_id: row.steps for row in rows}
    stopped = {row.trial_id: row for row in rows if row.verdict == PRUNE and row.state == TrialState.PRUNED}
    spared = {row.trial_id: row for row in rows if row.verdict == SPARE and row.state == TrialState.COMPLETE}
    total = sum(budgets.values())
    return schemas.Pruning(
        pruner=sweep.pruner,
        reason=sweep.pruner_reason,
        judged=len(budgets),
        pruned=len(stopped),
        saved_share=sum(row.steps - row.step for row in stopped.values()) / total if total else None,
        expected_front_loss=_expected_loss(session, sweep, list(stopped.values())) if stopped else None,
        spared=len(spared),
        spared_on_front=sum(row.pareto_rank == 1 for row in spared.values()),
    )


def _decisions(session: Session, sweep: Sweep) -> Sequence[Row]:
    """Those about the last attempts of trials that were trained to their end or stopped."""
    return session.execute(
        sa.select(
            PruningDecision.trial_id,
            PruningDecision.verdict,
            PruningDecision.step,
            PruningDecision.steps,
            PruningDecision.known,
            PruningDecision.predicted,
            PruningDecision.spread,
            Trial.state,
            Trial.pareto_rank,
        )
        .join(Trial, sa.and_(Trial.id == PruningDecision.trial_id, Trial.attempt == PruningDecision.attempt))
        .where(PruningDecision.sweep_id == sweep.id, Trial.state.in_((TrialState.COMPLETE, TrialState.PRUNED)))
        .order_by(PruningDecision.trial_id, PruningDecision.rung)
    ).all()


def _expected_loss(session: Session, sweep: Sweep, stopped: Sequence[Row]) -> float | None:
    """The share of the front that is expected to be among the stopped; None if one has no prediction."""
    objective = objective_of_training(sweep.objectives)
    front = session.scalars(
        sa.select(Trial.metrics).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1).order_by(Trial.number)
    ).all()
    if objective is None or not front or any(row.predicted is None for row in stopped):
        return None
    lost = math.fsum(_chance(row, objective, sweep.objectives, front) for row in stopped)
    return lost / (len(front) + lost)


def _chance(
    row: Row, objective: Objective, objectives: Sequence[Objective], front: Sequence[Mapping[str, float]]
) -> float:
    """The probability that a stopped trial would be on the front as it is now, by the normal law."""
    others = [each for each in objectives if each != objective]
    sign, metric = sign_of(objective), objective["metric"]
    bound = bound_of(
        np.array([costs_of(others, metrics) for metrics in front]).reshape(len(front), len(others)),
        np.array([sign * metrics[metric] for metrics in front]),
        np.array(costs_of(others, row.known)),
    )
    if math.isinf(bound):
        return 1.0
    distance = (sign * row.predicted - bound) / max(row.spread, 1e-300)
    return 0.5 * math.erfc(distance / math.sqrt(2))
