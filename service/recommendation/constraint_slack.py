"""What is left of every constraint, and what the next tighter or looser limit would buy, read off the trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layers.expressions.constraints import parse_constraint
from layers.metrics import Goal, is_metric
from layers.parameter import Scalar
from service.common import formatting
from service.recommendation.choice import Candidate, NothingWithinError, choose, front_of
from service.recommendation.metric_differences import in_words, metric_differences
from service.recommendation.preferences import SelectionPreferences
from service.recommendation.schemas import ConstraintSlack, LimitStep
from service.results.schemas import LeaderboardRow

Row = Callable[[Candidate], LeaderboardRow]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a slack is judged in: the recommended trial, the front, and the trials that broke something."""

    chosen: Candidate
    values: Mapping[str, Scalar]
    """The recommended trial's metrics and parameters by name."""
    front: Sequence[Candidate]
    broken: Sequence[Candidate]
    """Trials that are not feasible, with what they break. Those that were stopped before training have no loss."""
    goals: Mapping[str, Goal]
    wishes: SelectionPreferences
    baseline_nats: float | None = None
    """The lowest validation loss of a model that only counts."""


def slacks(constraints: Sequence[str], setting: Setting, row: Row) -> list[ConstraintSlack]:
    """One entry a constraint, in the document's order. Those that do not apply to the trial are left out."""
    found: list[ConstraintSlack] = []
    for text in constraints:
        constraint = parse_constraint(text)
        violation = constraint.violation(setting.values)
        if violation is None:
            continue
        names, of_metric = constraint.expression.names, constraint.metric_limit()
        metric = names[0] if len(names) == 1 and is_metric(names[0]) else None
        limit = of_metric.value if of_metric is not None and of_metric.is_in_unit else None
        slack = -violation
        found.append(
            ConstraintSlack(
                constraint=text,
                metric=metric,
                value=None if metric is None else float(setting.values[metric]),
                limit=limit,
                slack=slack,
                slack_share=slack / abs(limit) if limit else None,
                tighter=_tighter(text, metric, setting, row),
                looser=_looser(text, metric, slack, setting, row),
            )
        )
    return found


def _tighter(text: str, metric: str | None, setting: Setting, row: Row) -> LimitStep:
    """The choice among the trials of the front that keep the constraint by more than the recommended one."""
    own = setting.chosen.violations.get(text, math.inf)
    kept = [each for each in setting.front if each.violations.get(text, math.inf) < own]
    try:
        choice = choose(kept, setting.goals, setting.wishes, setting.baseline_nats)
    except NothingWithinError:
        choice = None
    if choice is None:
        return LimitStep(limit=None, trial=None, trades=[], says="no trial of the front keeps it by more")
    other = choice.chosen
    traded = metric_differences(other, setting.chosen, [*setting.goals, "parameter_count"], setting.goals)
    limit = _finite(other.value(metric)) if metric else None
    at = f"{formatting.metric(metric, limit)}" if metric and limit is not None else "that trial's value"
    says = f"tightened to {at}, trial {other.number} would be recommended: {in_words(traded)}"
    return LimitStep(limit=limit, trial=row(other), trades=traded, says=says)


def _looser(text: str, metric: str | None, slack: float, setting: Setting, row: Row) -> LimitStep:
    """The nearest trial that only this constraint keeps off the front."""
    alone = [
        each
        for each in setting.broken
        if each.violations.get(text, 0.0) > 0
        and all(violation <= 0 for other, violation in each.violations.items() if other != text)
    ]
    alone.sort(key=lambda each: (each.violations[text], each.number))
    for each in alone:
        allowed = Candidate(each.id, each.number, each.metrics)
        joined = front_of([*setting.front, allowed], setting.goals)
        if any(member.id == each.id for member in joined):
            traded = metric_differences(each, setting.chosen, [*setting.goals, "parameter_count"], setting.goals)
            limit = _finite(each.value(metric)) if metric else None
            at = f"{formatting.metric(metric, limit)}" if metric and limit is not None else "its value"
            says = f"loosened to {at}, trial {each.number} would join the front: {in_words(traded)}"
            return LimitStep(limit=limit, trial=row(each), trades=traded, says=says)
    untrained = [each for each in alone if any(not math.isfinite(each.value(goal)) for goal in setting.goals)]
    if untrained:
        nearest = untrained[0]
        limit = _finite(nearest.value(metric)) if metric else None
        at = f", the nearest at {formatting.metric(metric, limit)}" if metric and limit is not None else ""
        stopped = formatting.plural(len(untrained), "trial")
        says = f"it alone stopped {stopped} before training{at}: what would have come of that is unknown"
        return LimitStep(limit=limit, trial=row(nearest), trades=[], says=says)
    if alone:
        return LimitStep(limit=None, trial=None, trades=[], says="the trials that it alone excludes are all dominated")
    says = "no measured trial is excluded by it alone: a looser limit buys nothing that was seen"
    if slack > 0:
        says += ", and the recommended trial does not use up this one"
    return LimitStep(limit=None, trial=None, trades=[], says=says)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
