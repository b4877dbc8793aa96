"""The recommended trial against the best model that only counts (n-grams, class shares): which was passed over, and how
long to train if no trial of the front beats it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.metrics import Goal
from service.common import formatting
from service.database.models import Dataset, Sweep, Trial
from service.datasets.implications import lowest_baseline
from service.leases import curves
from service.leases.schemas import CurvePoint
from service.recommendation.baselines.loss_slope import MOST_TIMES, LossSlope, loss_slope
from service.recommendation.choice import LOSS, Candidate, Choice
from service.recommendation.schemas import BaselineComparison, LossSlopeRecord
from service.results import leaderboards

LEAST_TIMES = 1.05
"""Below so many times the steps, more of them are not worth a number."""

MODELS = {"prior": "model that always gives the shares of the classes"}
"""How a baseline is called if "the NAME model" would not do."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The model that only counts with the lowest validation loss, in nats."""

    name: str
    nats: float

    @property
    def words(self) -> str:
        """What it is, and its loss."""
        model = MODELS.get(self.name, f"{self.name} model")
        return f"the {model} ({formatting.number(self.nats)} nats), which only counts"


def baseline_of(session: Session, sweep: Sweep) -> Baseline | None:
    """The best baseline of the sweep's dataset; None if it has none."""
    if sweep.dataset_id is None:
        return None
    profile = session.scalar(sa.select(Dataset.profile).where(Dataset.id == sweep.dataset_id))
    found = None if profile is None else lowest_baseline(profile)
    return None if found is None else Baseline(*found)


def compare(
    session: Session,
    baseline: Baseline,
    choice: Choice,
    trial: Trial,
    goals: dict[str, Goal],
    passed_over: Trial | None,
) -> BaselineComparison | None:
    """How the recommended trial does against the baseline; None if it has no validation loss.

    `passed_over`: the trial that the rule alone would choose, if it loses to the baseline.
    """
    own = trial.metrics.get(LOSS, math.nan)
    if not math.isfinite(own):
        return None
    beaten = own < baseline.nats
    slope = None if beaten else loss_slope(_curve(session, trial), _warmup_steps(trial))
    says = _says_of_passed_over(baseline, passed_over)
    if not beaten:
        says += _says_of_defeat(baseline, choice, trial, goals, slope)
    return BaselineComparison(
        model=baseline.name,
        loss_nats=baseline.nats,
        beaten=beaten,
        instead_of=None if passed_over is None else leaderboards.to_row(passed_over),
        slope=None if slope is None else _record(slope, own - baseline.nats),
        says=says,
    )


def _curve(session: Session, trial: Trial) -> list[CurvePoint]:
    """Of the trial's own training, or of that of the trial that it was reused from."""
    source = trial if trial.reused_from is None else session.get(Trial, trial.reused_from) or trial
    return curves.read(session, source.id, source.attempt)


def _warmup_steps(trial: Trial) -> int:
    return int((trial.configuration.get("training") or {}).get("warmup_steps") or 0)


def _record(slope: LossSlope, missing_nats: float) -> LossSlopeRecord:
    times = slope.times_to(missing_nats)
    return LossSlopeRecord(
        metric=slope.metric,
        from_step=slope.from_step,
        to_step=slope.to_step,
        nats_per_doubling=slope.nats_per_doubling,
        standard_error=slope.standard_error,
        steps_to_baseline=None if times is None else math.ceil(times * slope.to_step),
    )


def _says_of_passed_over(baseline: Baseline, passed_over: Trial | None) -> list[str]:
    if passed_over is None:
        return []
    loss = formatting.number(passed_over.metrics.get(LOSS, math.nan))
    return [
        f"trial {passed_over.number}, which the rule alone would choose, is passed over: its validation loss "
        f"({loss} nats) does not beat {baseline.words}"
    ]


def _says_of_defeat(
    baseline: Baseline, choice: Choice, trial: Trial, goals: dict[str, Goal], slope: LossSlope | None
) -> list[str]:
    own = trial.metrics[LOSS]
    better = [each for each in choice.front if each.value(LOSS) < baseline.nats]
    if better:
        best = min(better, key=lambda each: (each.value(LOSS), each.number))
        return [_beyond_limits(baseline, best, own)]
    advice = "train longer" if LOSS in goals else f"make {LOSS} an objective, or train longer,"
    return [
        f"no trial of the front beats {baseline.words}; this one has {formatting.number(own)} nats: {advice} before "
        "you deploy one",
        _says_of_slope(slope, own - baseline.nats),
    ]


def _beyond_limits(baseline: Baseline, best: Candidate, own: float) -> str:
    return (
        f"no trial within these limits beats {baseline.words}; this one has {formatting.number(own)} nats. Trial "
        f"{best.number} of the front does, with {formatting.number(best.value(LOSS))}"
    )


def _says_of_slope(slope: LossSlope | None, missing_nats: float) -> str:
    if slope is None:
        return "its curve has too few points to say how much longer"
    seen = f"over steps {slope.from_step:,} to {slope.to_step:,}"
    name = formatting.label(slope.metric)
    if not slope.falls:
        return (
            f"{seen} its {name} no longer falls clearly ({slope.nats_per_doubling:+.3f} ± {slope.standard_error:.3f} "
            "nats each time the steps double): a larger model or another learning rate may do more than longer training"
        )
    fell = (
        f"{seen} its {name} fell by {-slope.nats_per_doubling:.3f} ± {slope.standard_error:.3f} nats each time the "
        "steps doubled; at that rate "
    )
    times = slope.times_to(missing_nats)
    if times is None:
        return (
            f"{fell}it would take more than {MOST_TIMES:.0f} times as many steps: a larger model or another learning "
            "rate may do more"
        )
    most = slope.times_at_most(missing_nats)
    return (
        f"{fell}it would reach that baseline at {steps_in_words(slope.to_step, times, most)}. That extrapolates, more "
        "often too low than too high: curves flatten, and a schedule is made for its own length, so count on more"
    )


def steps_in_words(steps: int, times: float, most: float | None) -> str:
    """`about 700 steps, 1.4 times as many (by the scatter of its points up to 1,100)`: no more than two digits."""

    def about(factor: float) -> str:
        return f"{float(f'{factor * steps:.2g}'):,.0f}"

    text = (
        f"about {about(times)} steps, {times:.2g} times as many"
        if times >= LEAST_TIMES
        else f"little more than {steps:,} steps"
    )
    if most is None:
        return f"{text} (by the scatter of its points perhaps more than {MOST_TIMES:.0f} times)"
    if times < LEAST_TIMES or about(most) == about(times):
        return text
    return f"{text} (by the scatter of its points up to {about(most)})"
