"""Which trial of a front is recommended: the rule, and when a smaller trial takes the chosen one's place.

Nothing is read here: candidates in, a choice out. What is not a number is never recommended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from layers.metrics import Goal
from layers.metrics import metric as declaration_of
from service.database.models import Sweep, Trial
from service.recommendation.preferences import SelectionPreferences
from service.results.pareto import dominated

LOSS = "validation_loss"

NEAREST = (
    "Among the feasible complete trials of Pareto rank 1, the one nearest to the ideal point, which takes the best "
    "value of each objective: Euclidean distance, each objective scaled to the front's range{weights}."
)
BEST = "Among the feasible complete trials, the one with the best {metric}, the only objective."
PREFERRED = "Among the feasible complete trials of Pareto rank 1, the one with the best {metrics}."
BEATEN_BY_COUNTING = (
    " A trial whose validation_loss does not beat {baseline}, is passed over while another one beats it."
)
TIES = " Ties go to fewer parameters, then to the earlier trial."
SMALLER = (
    " A smaller trial takes its place where it is statistically as good: a validation_loss at most one standard error "
    "of the difference worse (the one-standard-error rule: Breiman et al. 1984, Classification and Regression "
    "Trees), and no other objective worse by more than the noise of its measurement."
)
CONFIRMED = (
    " Of confirmed trials the mean losses over their further seeds are compared, and no unconfirmed trial takes the "
    "place of a confirmed one."
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A complete trial, as far as a choice needs it."""

    id: str
    number: int
    metrics: Mapping[str, float]
    feasible: bool = True
    violations: Mapping[str, float] = field(default_factory=dict[str, float])

    def value(self, metric: str) -> float:
        """NaN if it has none."""
        return float(self.metrics.get(metric, math.nan))

    @property
    def trainings(self) -> int:
        """How many its loss is the mean of."""
        return max(1, int(self.metrics.get("trainings", 1)))

    @property
    def keeps_constraints(self) -> bool:
        return self.feasible and all(violation <= 0 for violation in self.violations.values())


@dataclass(frozen=True, slots=True)
class Choice:
    """The trial that the wishes choose, and what it was chosen from."""

    chosen: Candidate
    front: list[Candidate]
    kept: list[Candidate]
    """Of the front, those within the limits: the chosen one first, then as the rule orders them."""
    limits: dict[str, float]
    """Metric -> the worst value that is within."""
    baseline_nats: float | None = None
    """The lowest validation loss of a model that only counts; None if there is none."""
    passed_over: Candidate | None = None
    """What the rule would choose without that baseline, if it is another one than `chosen`."""

    def beats_baseline(self, candidate: Candidate) -> bool:
        return self.baseline_nats is None or candidate.value(LOSS) < self.baseline_nats


class NothingWithinError(Exception):
    """No trial of the front keeps every limit; `closest` is the one that misses them by least."""

    def __init__(self, closest: Candidate, limits: Mapping[str, float]) -> None:
        super().__init__(f"no trial of the front is within {', '.join(limits)}")
        self.closest = closest
        self.limits = dict(limits)


def is_even(front: Sequence[Candidate], goals: Mapping[str, Goal], wishes: SelectionPreferences) -> bool:
    """Whether the front is two trials that are equally near to the ideal point: each is the best of one objective."""
    if len(front) != 2 or wishes.prefer:
        return False
    first, second = _distances(front, goals, wishes.weights).values()
    return first > 0 and math.isclose(first, second)


def goals_of(sweep: Sweep) -> dict[str, Goal]:
    """Objective -> goal, in the sweep's order."""
    return {each["metric"]: each["goal"] for each in sweep.objectives}


def candidate_of(trial: Trial) -> Candidate:
    return Candidate(trial.id, trial.number, trial.metrics, trial.feasible is True, trial.violations or {})


def goal_of(metric: str, goals: Mapping[str, Goal]) -> Goal:
    """The sweep's own goal for a metric that is an objective, else the metric's."""
    return goals.get(metric) or declaration_of(metric).goal


def front_of(candidates: Sequence[Candidate], goals: Mapping[str, Goal]) -> list[Candidate]:
    """The candidates that keep every constraint, have every objective, and that none such dominates."""
    able = [
        candidate
        for candidate in candidates
        if candidate.keeps_constraints and all(math.isfinite(candidate.value(metric)) for metric in goals)
    ]
    if not able:
        return []
    costs = np.array([[_cost(candidate, metric, goals) for metric in goals] for candidate in able])
    beaten = dominated(costs, costs)
    return [candidate for candidate, is_beaten in zip(able, beaten, strict=True) if not is_beaten]


def choose(
    candidates: Sequence[Candidate],
    goals: Mapping[str, Goal],
    wishes: SelectionPreferences,
    baseline_nats: float | None = None,
) -> Choice | None:
    """The choice on the front of `candidates`; None if no candidate can be recommended.

    `goals` are the sweep's objectives in order; trials that beat the baseline go before those that do not. Raises
    NothingWithinError.
    """
    front = front_of(candidates, goals)
    if not front:
        return None
    limits = _limits(front, goals, wishes)
    kept = [candidate for candidate in front if _is_within(candidate, limits, goals)]
    if not kept:
        raise NothingWithinError(_closest(front, limits, goals), limits)
    distances = _distances(front, goals, wishes.weights)

    def order(candidate: Candidate) -> tuple[float | int, ...]:
        preferred = (_last_if_nan(_cost(candidate, metric, goals)) for metric in wishes.prefer)
        size = _last_if_nan(candidate.value("parameter_count"))
        return (*preferred, distances[candidate.id], size, candidate.number)

    kept.sort(key=order)
    by_rule = kept[0]
    if baseline_nats is not None:
        kept.sort(key=lambda candidate: not candidate.value(LOSS) < baseline_nats)
    passed_over = by_rule if kept[0].id != by_rule.id else None
    return Choice(kept[0], front, kept, limits, baseline_nats, passed_over)


@dataclass(frozen=True, slots=True)
class LossDifference:
    """How much higher the validation loss of one trial is than that of another, in nats."""

    nats: float
    standard_error_nats: float
    is_of_further_seeds: bool = False
    """Of the means over the further seeds of confirmations, not of the figures that the sweep measured."""


CompareLosses = Callable[[Candidate, Candidate], LossDifference | None]
"""The first trial's loss less the second's; None if that or its error is not known."""

Tolerance = Callable[[Candidate, Candidate, str], float]
"""How far two measurements of a metric may differ by noise alone, in its unit."""


@dataclass(frozen=True, slots=True)
class Smaller:
    """A trial with fewer parameters that is statistically as good as the one that the rule chose."""

    candidate: Candidate
    instead_of: Candidate
    difference: LossDifference


@dataclass(frozen=True, slots=True)
class SmallerTrials:
    """What the overfitting rule found."""

    taken: Smaller | None = None
    """It takes the chosen trial's place."""
    unconfirmed: Smaller | None = None
    """A still smaller one that is as good by the sweep's own figures. It takes no place: it was not confirmed, and
    what it would replace was."""


def find_smaller(
    choice: Choice,
    candidates: Sequence[Candidate],
    goals: Mapping[str, Goal],
    compare_losses: CompareLosses,
    tolerance: Tolerance,
    confirmed: Collection[str] = (),
) -> SmallerTrials:
    """The trial with the fewest parameters that is statistically as good as the chosen one.

    It keeps every constraint and every limit of the choice, and beats the baseline if the chosen one does. Ties go
    to the lower loss, then to the earlier trial. `confirmed`: the ids of confirmed trials. If the chosen trial, or
    a smaller one as good, is among them, no other takes its place: the spread over seeds that a confirmation finds
    widens what counts as good, also for trials whose own further seeds nobody has seen.
    """
    chosen = choice.chosen
    found: list[Smaller] = []
    for candidate in candidates:
        if not candidate.keeps_constraints or not candidate.value("parameter_count") < chosen.value("parameter_count"):
            continue
        if choice.beats_baseline(chosen) and not choice.beats_baseline(candidate):
            continue
        if not _is_within(candidate, choice.limits, goals):
            continue
        others = [metric for metric in goals if metric != LOSS]
        if any(_is_worse(candidate, chosen, metric, goals, tolerance(candidate, chosen, metric)) for metric in others):
            continue
        difference = compare_losses(candidate, chosen)
        if difference is not None and difference.nats <= difference.standard_error_nats:
            found.append(Smaller(candidate, chosen, difference))
    found.sort(key=_size_then_loss)
    smallest = next(iter(found), None)
    taken = next((each for each in found if each.candidate.id in confirmed), None)
    if taken is None and chosen.id not in confirmed:
        return SmallerTrials(smallest)
    return SmallerTrials(taken, unconfirmed=smallest if smallest is not taken else None)


def _size_then_loss(smaller: Smaller) -> tuple[float, float, int]:
    candidate = smaller.candidate
    return candidate.value("parameter_count"), candidate.value(LOSS), candidate.number


def rule_in_words(
    wishes: SelectionPreferences,
    task: str,
    objectives: Collection[str],
    baseline: str | None = None,
    *,
    is_confirmed: bool = False,
) -> str:
    """How a trial is chosen under these wishes, of a sweep with the metrics `objectives`. `baseline`: the best model
    that only counts, in words; `is_confirmed`: whether trials of the sweep were confirmed."""
    if wishes.prefer:
        rule = PREFERRED.format(metrics=", then the best ".join(wishes.prefer))
    elif len(objectives) == 1:
        rule = BEST.format(metric=next(iter(objectives)))
    else:
        listed = ", ".join(f"{name} {weight:g}" for name, weight in wishes.weights.items())
        rule = NEAREST.format(weights=f" and weighted ({listed}; the others 1)" if listed else "")
    if wishes.within:
        limits = " and ".join(str(limit) for limit in wishes.within)
        rule += f" Only trials within {limits} of the front's best are considered."
    if baseline is not None and task != "probe":
        rule += BEATEN_BY_COUNTING.format(baseline=baseline)
    # A probe learns nothing: no smaller trial of it has a loss that is as good.
    return rule + TIES + ("" if task == "probe" else SMALLER + (CONFIRMED if is_confirmed else ""))


def _limits(front: Sequence[Candidate], goals: Mapping[str, Goal], wishes: SelectionPreferences) -> dict[str, float]:
    limits: dict[str, float] = {}
    for within in wishes.within:
        goal = goal_of(within.metric, goals)
        values = [value for each in front if math.isfinite(value := each.value(within.metric))]
        if values:
            best = min(values) if goal == "minimize" else max(values)
            limits[within.metric] = within.limit(best, goal)
        else:
            limits[within.metric] = math.nan
    return limits


def _is_within(candidate: Candidate, limits: Mapping[str, float], goals: Mapping[str, Goal]) -> bool:
    """A value that is missing, or not a number, is not within anything."""
    for metric, limit in limits.items():
        value = candidate.value(metric)
        kept = value <= limit if goal_of(metric, goals) == "minimize" else value >= limit
        if not kept:
            return False
    return True


def _closest(front: Sequence[Candidate], limits: Mapping[str, float], goals: Mapping[str, Goal]) -> Candidate:
    def miss(candidate: Candidate) -> float:
        shares = [0.0]
        for metric, limit in limits.items():
            excess = candidate.value(metric) - limit
            excess = excess if goal_of(metric, goals) == "minimize" else -excess
            shares.append(excess / (abs(limit) or 1.0))
        return _last_if_nan(max(shares))

    return min(front, key=lambda candidate: (miss(candidate), candidate.number))


def _distances(front: Sequence[Candidate], goals: Mapping[str, Goal], weights: Mapping[str, float]) -> dict[str, float]:
    costs = np.array([[_cost(candidate, metric, goals) for metric in goals] for candidate in front])
    best = costs.min(axis=0)
    # Halves first: the range of two huge values is not itself a number.
    span = costs.max(axis=0) / 2 - best / 2
    scaled = np.where(span > 0, (costs / 2 - best / 2) / np.where(span > 0, span, 1.0), 0.0)
    weighted = scaled * np.array([weights.get(metric, 1.0) for metric in goals])
    lengths = np.sqrt(np.square(weighted).sum(axis=1))
    return {candidate.id: float(length) for candidate, length in zip(front, lengths, strict=True)}


def _is_worse(candidate: Candidate, than: Candidate, metric: str, goals: Mapping[str, Goal], tolerance: float) -> bool:
    excess = _cost(candidate, metric, goals) - _cost(than, metric, goals)
    return not excess <= max(tolerance, 0.0)


def _cost(candidate: Candidate, metric: str, goals: Mapping[str, Goal]) -> float:
    """The value, lower is better."""
    value = candidate.value(metric)
    return value if goal_of(metric, goals) == "minimize" else -value


def _last_if_nan(value: float) -> float:
    return value if not math.isnan(value) else math.inf
