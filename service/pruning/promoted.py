"""Trials that a pruner has stopped: which they are, and whether the state of their trainings is kept."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.states import TrialState
from service.database.models import Artifact, Trial
from service.database.pruning_models import PruningDecision
from service.leases.statements import TRAINING_STATE
from service.pruning.decisions import PRUNE

MOST_KEPT_BYTES = 20 << 30
"""Of states of stopped trainings of a sweep: about three times its weights each. What comes later is not kept, and
begins anew if it is promoted."""

IS_STOPPED = sa.and_(
    Trial.state == TrialState.PRUNED,
    sa.exists().where(
        PruningDecision.trial_id == Trial.id,
        PruningDecision.attempt == Trial.attempt,
        PruningDecision.verdict == PRUNE,
    ),
)
"""Whether a pruner has stopped a trial's newest attempt. One that diverged is pruned, too, and ended by itself."""


def is_stopped(session: Session, trial_id: str) -> bool:
    """Whether a pruner has stopped the trial, and it was not queued again."""
    return session.scalar(sa.select(Trial.id).where(Trial.id == trial_id, IS_STOPPED)) is not None


def is_state_wanted(session: Session, trial_id: str, stores_artifacts: bool) -> bool:
    """Whether the state of a training that is to be stopped is kept."""
    if not stores_artifacts:
        return False
    of_sweep = sa.select(Trial.sweep_id).where(Trial.id == trial_id).scalar_subquery()
    kept_bytes = session.scalar(
        sa.select(sa.func.coalesce(sa.func.sum(Artifact.size_bytes), 0))
        .join(Trial, Trial.id == Artifact.trial_id)
        .where(Trial.sweep_id == of_sweep, Artifact.name == TRAINING_STATE)
    )
    return (kept_bytes or 0) < MOST_KEPT_BYTES
