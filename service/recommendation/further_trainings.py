"""The further trainings of a confirmation, read from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.common.states import SweepState, TrialState
from service.database.models import Confirmation, Measurement, Sweep, Trial
from service.recommendation.choice import LOSS
from service.recommendation.noise import BLOCKS_MEASUREMENT, Blocks, pooled_spread

TEST_LOSS = "test_loss"


@dataclass(frozen=True, slots=True)
class FurtherTraining:
    """One further training, and the blocks of its losses by split."""

    trial: Trial
    blocks: JsonObject


@dataclass(frozen=True, slots=True)
class ScoredTraining:
    """A further training with both of its losses, in nats, and the blocks of the test split's."""

    seed: int
    validation_loss: float
    test_loss: float
    test_blocks: Blocks | None = None


def current(session: Session, sweep_id: str) -> Confirmation | None:
    """The confirmation that counts: the newest that goes on or came to its end, else the newest that did not."""
    given_up = sa.case((Sweep.state.in_((SweepState.CANCELLED, SweepState.FAILED)), 1), else_=0)
    return session.scalar(_of_sweep(sweep_id).order_by(given_up, Confirmation.sweep_id.desc()).limit(1))


def by_candidate(session: Session, row: Confirmation) -> dict[str, list[FurtherTraining]]:
    """Original trial -> its further trainings, by number."""
    is_blocks = sa.and_(Measurement.trial_id == Trial.id, Measurement.name == BLOCKS_MEASUREMENT)
    rows = session.execute(
        sa.select(Trial, Measurement.data)
        .join(Measurement, is_blocks, isouter=True)
        .where(Trial.sweep_id == row.sweep_id)
        .order_by(Trial.number)
    )
    found: dict[str, list[FurtherTraining]] = {}
    for trial, blocks in rows:
        original = (trial.started_from or "").removeprefix("trial:")
        found.setdefault(original, []).append(FurtherTraining(trial, blocks or {}))
    return found


def scored(trainings: Sequence[FurtherTraining]) -> list[ScoredTraining]:
    """Those that have both losses."""
    return [
        ScoredTraining(
            seed=int(training.trial.configuration["training"]["seed"]),
            validation_loss=training.trial.metrics[LOSS],
            test_loss=training.trial.metrics[TEST_LOSS],
            test_blocks=Blocks.read(training.blocks.get("test")),
        )
        for training in trainings
        if training.trial.state == TrialState.COMPLETE and {LOSS, TEST_LOSS} <= training.trial.metrics.keys()
    ]


def seed_spread(session: Session, sweep_id: str) -> tuple[float | None, int]:
    """The spread of validation losses over seeds by the newest completed confirmation, and of how many seeds."""
    completed = _of_sweep(sweep_id).where(Sweep.state == SweepState.COMPLETED)
    row = session.scalar(completed.order_by(Confirmation.sweep_id.desc()).limit(1))
    if row is None:
        return None, 1
    runs = [scored(found) for found in by_candidate(session, row).values()]
    return pooled_spread([[run.validation_loss for run in each] for each in runs]), 1 + len(row.seeds)


def _of_sweep(sweep_id: str) -> sa.Select[Confirmation]:
    joined = sa.select(Confirmation).join(Sweep, Sweep.id == Confirmation.sweep_id)
    return joined.where(Confirmation.confirms == sweep_id)
