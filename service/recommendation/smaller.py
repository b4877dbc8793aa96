"""The overfitting rule on a sweep's rows: a smaller trial that is as good takes the chosen one's place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.metrics import Goal
from service.common import formatting
from service.common.states import TrialState
from service.database.models import Sweep, Trial, TrialMetric
from service.recommendation.choice import LOSS, Candidate, Choice, Smaller, candidate_of, find_smaller
from service.recommendation.measured_noise import validation_blocks
from service.recommendation.noise import difference_error, sampling_error
from service.recommendation.schemas import SmallerTrial
from service.recommendation.uncertainty import Noise
from service.results.schemas import LeaderboardRow

MAX_SMALLER = 300
"""Smaller trials that are looked at, the smallest first."""


def smaller_trial(
    session: Session, sweep: Sweep, choice: Choice, goals: Mapping[str, Goal], noise: Noise
) -> tuple[Smaller, Trial] | None:
    """The smaller trial that takes the chosen one's place, with its row; None if there is none."""
    chosen = choice.chosen
    size, loss = chosen.value("parameter_count"), chosen.value(LOSS)
    own = validation_blocks(session, [chosen.id]).get(chosen.id)
    error = sampling_error(own)
    if not math.isfinite(size) or not math.isfinite(loss) or error is None:
        return None
    # Paired errors are below the sum of both; another trial's own error is about as large.
    # What is better by more than that is no smaller twin: the rule itself has weighed it against the chosen one.
    reach = 2 * error + 1.5 * (noise.seed_spread_nats or 0.0)
    smaller_ones = session.scalars(_smaller_alike(sweep, size, loss - reach, loss + reach)).all()
    blocks = validation_blocks(session, [trial.id for trial in smaller_ones])
    spread = noise.seed_spread_nats or 0.0

    def error_of_difference(candidate: Candidate, other: Candidate) -> float | None:
        sampling = difference_error(blocks.get(candidate.id), own)
        seeds = spread * math.sqrt(1 / candidate.trainings + 1 / other.trainings)
        return None if sampling is None else math.hypot(sampling, seeds)

    def tolerance(candidate: Candidate, other: Candidate, metric: str) -> float:
        return math.sqrt(2) * noise.deviation(metric, other.value(metric))

    found = find_smaller(choice, [candidate_of(trial) for trial in smaller_ones], goals, error_of_difference, tolerance)
    if found is None:
        return None
    return found, next(trial for trial in smaller_ones if trial.id == found.candidate.id)


def _smaller_alike(sweep: Sweep, size: float, least: float, most: float) -> sa.Select[Trial]:
    """Feasible complete trials below a size whose loss lies between two values, the smallest first."""
    # One after the other: the few losses by their index, then the sizes of those, then the rows.
    alike = sa.select(TrialMetric.trial_id).where(
        TrialMetric.sweep_id == sweep.id, TrialMetric.name == LOSS, TrialMetric.value.between(least, most)
    )
    sizes = (
        sa.select(TrialMetric.trial_id, TrialMetric.value)
        .where(TrialMetric.trial_id.in_(alike), TrialMetric.name == "parameter_count", TrialMetric.value < size)
        .cte("sizes")
    )
    return (
        sa.select(Trial)
        .join(sizes, sizes.c.trial_id == Trial.id)
        .where(Trial.state == TrialState.COMPLETE, Trial.feasible.is_(True))
        .order_by(sizes.c.value, Trial.number)
        .limit(MAX_SMALLER)
    )


def in_words(smaller: Smaller, instead_of: LeaderboardRow) -> SmallerTrial:
    """Why it takes the place of the trial that the rule chose."""
    candidate, instead = smaller.candidate, smaller.instead_of
    saved = int(instead.value("parameter_count") - candidate.value("parameter_count"))
    difference, error = smaller.loss_difference_nats, smaller.standard_error_nats
    says = (
        f"trial {candidate.number} is recommended in place of trial {instead.number}, which the rule alone would "
        f"choose: with {formatting.count(saved)} parameters less ({saved / instead.value('parameter_count'):.0%}) its "
        f"validation loss is {difference:+.4f} nats, within one standard error of the difference ({error:.4f})"
    )
    return SmallerTrial(
        instead_of=instead_of,
        parameters_saved=saved,
        loss_difference_nats=difference,
        standard_error_nats=error,
        says=says,
    )
