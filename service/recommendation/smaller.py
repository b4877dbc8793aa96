"""The overfitting rule on a sweep's rows: a smaller trial that is as good takes the chosen one's place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.metrics import Goal
from service.common import formatting
from service.common.states import TrialState
from service.database.models import Sweep, Trial, TrialMetric
from service.recommendation.choice import (
    LOSS,
    Candidate,
    Choice,
    LossDifference,
    Smaller,
    SmallerTrials,
    candidate_of,
    find_smaller,
)
from service.recommendation.further_trainings import ConfirmedLosses
from service.recommendation.measured_noise import validation_blocks
from service.recommendation.noise import difference_error, sampling_error
from service.recommendation.schemas import SmallerTrial
from service.recommendation.uncertainty import Noise
from service.results.schemas import LeaderboardRow

MAX_SMALLER = 300
"""Smaller trials that are looked at, the smallest first."""


def smaller_trials(
    session: Session,
    sweep: Sweep,
    choice: Choice,
    goals: Mapping[str, Goal],
    noise: Noise,
    confirmed: ConfirmedLosses,
) -> tuple[SmallerTrials, dict[str, Trial]]:
    """What the rule finds, with the rows of what it found by id."""
    chosen = choice.chosen
    size, loss = chosen.value("parameter_count"), chosen.value(LOSS)
    own = validation_blocks(session, [chosen.id]).get(chosen.id)
    error = sampling_error(own)
    if not math.isfinite(size) or not math.isfinite(loss) or error is None:
        return SmallerTrials(), {}
    spread = noise.seed_spread_nats or 0.0
    # Paired errors are below the sum of both; another trial's own error is about as large.
    # What is better by more than that is no smaller twin: the rule itself has weighed it against the chosen one.
    reach = 2 * error + 1.5 * spread
    alike = session.scalars(_smaller_alike(sweep, size, loss - reach, loss + reach)).all()
    # A confirmed trial is judged by its further seeds, wherever its own loss lies.
    among = sa.select(Trial).where(Trial.id.in_(confirmed.by_trial), *_can_be_recommended(sweep))
    rows = {trial.id: trial for trial in (*alike, *session.scalars(among))}
    blocks = validation_blocks(session, rows)

    def compare_losses(candidate: Candidate, other: Candidate) -> LossDifference | None:
        sampling = difference_error(blocks.get(candidate.id), own)
        if sampling is None:
            return None
        further = confirmed.by_trial.get(candidate.id), confirmed.by_trial.get(other.id)
        if further[0] is not None and further[1] is not None:
            difference = fmean(further[0]) - fmean(further[1])
            seeds = spread * math.sqrt(1 / len(further[0]) + 1 / len(further[1]))
            return LossDifference(difference, math.hypot(sampling, seeds), is_of_further_seeds=True)
        difference = candidate.value(LOSS) - other.value(LOSS)
        seeds = spread * math.sqrt(1 / candidate.trainings + 1 / other.trainings)
        return LossDifference(difference, math.hypot(sampling, seeds)) if abs(difference) <= reach else None

    def tolerance(candidate: Candidate, other: Candidate, metric: str) -> float:
        return math.sqrt(2) * noise.deviation(metric, other.value(metric))

    candidates = [candidate_of(trial) for trial in rows.values()]
    found = find_smaller(choice, candidates, goals, compare_losses, tolerance, confirmed.by_trial)
    named = [each.candidate.id for each in (found.taken, found.unconfirmed) if each is not None]
    return found, {trial_id: rows[trial_id] for trial_id in named}


def _can_be_recommended(sweep: Sweep) -> tuple[sa.ColumnElement[bool], ...]:
    return Trial.sweep_id == sweep.id, Trial.state == TrialState.COMPLETE, Trial.feasible.is_(True)


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
        .where(*_can_be_recommended(sweep))
        .order_by(sizes.c.value, Trial.number)
        .limit(MAX_SMALLER)
    )


def in_words(smaller: Smaller, instead_of: LeaderboardRow) -> SmallerTrial:
    """Why it takes the place of the trial that the rule chose."""
    candidate, difference = smaller.candidate, smaller.difference
    says = (
        f"trial {candidate.number} is recommended in place of trial {instead_of.number}, which the rule alone would "
        f"choose: {_as_good(smaller)}"
    )
    return SmallerTrial(
        instead_of=instead_of,
        parameters_saved=_saved(smaller),
        loss_difference_nats=difference.nats,
        standard_error_nats=difference.standard_error_nats,
        says=says,
    )


def unconfirmed_in_words(unconfirmed: Smaller) -> str:
    """Why it takes no place, and what would tell whether it should."""
    number = unconfirmed.candidate.number
    return (
        f"trial {number} may be as good as trial {unconfirmed.instead_of.number}, but was not confirmed: "
        f"{_as_good(unconfirmed)}. Confirm it to see (layersweep confirm SWEEP --trial {number})"
    )


def _as_good(smaller: Smaller) -> str:
    difference = smaller.difference
    share = _saved(smaller) / smaller.instead_of.value("parameter_count")
    loss = "mean validation loss over further seeds" if difference.is_of_further_seeds else "validation loss"
    return (
        f"with {formatting.count(_saved(smaller))} parameters less ({share:.0%}) its {loss} is {difference.nats:+.4f} "
        f"nats, within one standard error of the difference ({difference.standard_error_nats:.4f})"
    )


def _saved(smaller: Smaller) -> int:
    return int(smaller.instead_of.value("parameter_count") - smaller.candidate.value("parameter_count"))
