"""What a pruned trial was expected to come to: samplers learn from it as from a result that is less certain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.models import Sweep, Trial
from service.database.pruning_models import PruningDecision
from service.pruning.choice import objective_of_training
from service.pruning.decisions import PRUNE


@dataclass(frozen=True, slots=True)
class Prediction:
    """The objectives of a trial by their metrics: what was measured, and what the training was expected to bring."""

    values: Mapping[str, float]
    spread: float
    """Standard deviation of what was expected."""


def predictions_of(session: Session, trial_ids: Collection[str]) -> dict[str, Prediction]:
    """Of those of the trials whose last attempt a pruner has stopped by a prediction."""
    if not trial_ids:
        return {}
    rows = session.execute(
        sa.select(
            PruningDecision.trial_id,
            PruningDecision.known,
            PruningDecision.predicted,
            PruningDecision.spread,
            Sweep.objectives,
        )
        .join(Trial, sa.and_(Trial.id == PruningDecision.trial_id, Trial.attempt == PruningDecision.attempt))
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(PruningDecision.trial_id.in_(trial_ids), PruningDecision.verdict == PRUNE)
        .order_by(PruningDecision.rung)
    )
    found: dict[str, Prediction] = {}
    for trial_id, known, predicted, spread, objectives in rows:
        objective = objective_of_training(objectives)
        if predicted is not None and spread is not None and objective is not None:
            found[trial_id] = Prediction({**known, objective["metric"]: predicted}, spread)
    return found
