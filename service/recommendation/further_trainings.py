"""The further trainings of a confirmation, read from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.common.states import GOING_SWEEPS, SweepState, TrialState
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


def current(session: Session, sweep_id: str, recommended: str | None) -> Confirmation | None:
    """The confirmation to show beside a recommended trial: the newest that goes on, else the newest of that trial, else
    the newest that came to its end, else the newest that did not."""

    def order(found: tuple[Confirmation, SweepState]) -> int:
        row, state = found
        if state in GOING_SWEEPS:
            return 0
        if state != SweepState.COMPLETED:
            return 3
        return 1 if recommended in row.candidates else 2

    rows = session.execute(
        sa.select(Confirmation, Sweep.state)
        .join(Sweep, Sweep.id == Confirmation.sweep_id)
        .where(Confirmation.confirms == sweep_id)
        .order_by(Confirmation.sweep_id.desc())
    )
    newest = [(row, SweepState(state)) for row, state in rows]
    return min(newest, key=order)[0] if newest else None


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


@dataclass(frozen=True, slots=True)
class ConfirmedLosses:
    """What the further trainings of all completed confirmations of a sweep had on the validation split."""

    by_trial: Mapping[str, tuple[float, ...]]
    """Original trial -> the validation loss, in nats, of each of its further seeds: one or more."""

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, pooled over the trials; None while none has two further seeds."""
        return pooled_spread(list(self.by_trial.values()))


def confirmed_losses(session: Session, sweep_id: str) -> ConfirmedLosses:
    """Of all confirmations: trials that were confirmed one after the other are compared with one another, too."""
    losses: dict[str, tuple[float, ...]] = {}
    completed = _of_sweep(sweep_id).where(Sweep.state == SweepState.COMPLETED).order_by(Confirmation.sweep_id)
    for row in session.scalars(completed).all():
        for trial_id, trainings in by_candidate(session, row).items():
            if runs := scored(trainings):
                losses[trial_id] = (*losses.get(trial_id, ()), *(run.validation_loss for run in runs))
    return ConfirmedLosses(losses)


def is_confirmed(session: Session, sweep_id: str, trial_id: str) -> bool:
    """Whether a completed confirmation of the sweep has the trial among its candidates."""
    completed = _of_sweep(sweep_id).where(Sweep.state == SweepState.COMPLETED)
    return any(trial_id in row.candidates for row in session.scalars(completed))


def _of_sweep(sweep_id: str) -> sa.Select[Confirmation]:
    joined = sa.select(Confirmation).join(Sweep, Sweep.id == Confirmation.sweep_id)
    return joined.where(Confirmation.confirms == sweep_id)
