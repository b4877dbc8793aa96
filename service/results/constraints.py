"""How a sweep's trials did by its constraints: which were broken, by how little, and what limits more would keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cached_property
from statistics import median

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.constraints import Constraint, MetricLimit, parse_constraint
from service.common import formatting
from service.common.noise import StoredNoise
from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.results.schemas import BrokenConstraint, ConstraintSummary, LoosenedConstraint, LoosenedLimits

MOST_TRIALS = 10_000
"""Judged trials that are looked at, the newest first."""

WANTED = (1, 3, 5)
"""For how many feasible trials the limits are told."""

UNREACHABLE = 1e300
"""A violation from here on is of something that cannot be calculated: no limit allows it."""

DIGITS = 4

_NO_NOISE: StoredNoise = {"figures": {}, "undecided": []}


@dataclass(frozen=True, slots=True)
class _Judged:
    """A trial, and by how much it breaks each constraint: at most 0 if it fulfils it."""

    number: int
    state: TrialState
    violations: Mapping[str, float]
    feasible: bool | None
    """None: it cannot be judged, as a limit lies within the noise of its figures."""
    noise: StoredNoise

    def is_undecided(self, text: str) -> bool:
        return text in self.noise["undecided"]

    def miss(self, text: str) -> float:
        return 0.0 if self.is_undecided(text) else max(0.0, self.violations.get(text, 0.0))


@dataclass(frozen=True)
class _Limit:
    """A constraint, and the limit on one metric that it is, if it is one."""

    constraint: Constraint

    @property
    def text(self) -> str:
        return self.constraint.text

    @cached_property
    def of_metric(self) -> MetricLimit | None:
        """None, too, if its violations are not in the metric's unit."""
        limit = self.constraint.metric_limit()
        return limit if limit is not None and limit.is_in_unit else None

    def amount(self, by: float) -> str:
        """How much a violation is, in the metric's unit if it has one; else a bare number."""
        return formatting.number(by) if self.of_metric is None else formatting.metric(self.of_metric.metric, by)

    def miss(self, trial: _Judged) -> float:
        """By how much it has to be loosened until the trial is certain to keep it, its noise included."""
        measured = max(0.0, trial.violations.get(self.text, 0.0))
        if self.of_metric is None:
            return math.inf if trial.is_undecided(self.text) else measured
        end = self._end(trial)
        return measured if end is None else max(measured, self.of_metric.slope * (end - self.of_metric.value))

    def reach(self, trial: _Judged) -> str | None:
        """`the interval of trial 6 reaches to 0.1218 ms`, if its noise is what it misses the limit by."""
        end = self._end(trial)
        if self.of_metric is None or end is None or self.miss(trial) <= trial.violations[self.text]:
            return None
        return f"the interval of trial {trial.number} reaches to {formatting.metric(self.of_metric.metric, end)}"

    def _end(self, trial: _Judged) -> float | None:
        """The end of the metric's interval that lies nearest to breaking it, or farthest beyond; None if it is known
        well enough, or was not measured."""
        if self.of_metric is None or self.text not in trial.violations:
            return None
        figure = trial.noise["figures"].get(self.of_metric.metric)
        if figure is None or figure["known"]:
            return None
        return figure["high"] if self.of_metric.slope > 0 else figure["low"]

    def loosened(self, by: float) -> LoosenedConstraint:
        """It, so that a violation of `by` is allowed."""
        if self.of_metric is None:
            allow = f"{self.text}, loosened by {formatting.number(by)}"
            return LoosenedConstraint(constraint=self.text, by=by, limit=None, allow=allow)
        metric, slope = self.of_metric.metric, self.of_metric.slope
        limit = _rounded(self.of_metric.value + slope * by, up=slope > 0)
        allow = f"{metric} {'<=' if slope > 0 else '>='} {_written(limit)}"
        return LoosenedConstraint(constraint=self.text, by=by, limit=limit, allow=allow)


def summary(session: Session, sweep: Sweep) -> ConstraintSummary:
    """Which constraints the trials broke, and the limits under which some more of them would be feasible."""
    is_measured = sa.or_(Trial.feasible.is_not(None), Trial.state == TrialState.COMPLETE)
    rows = session.execute(
        sa.select(Trial.number, Trial.state, Trial.violations, Trial.feasible, Trial.noise)
        .where(Trial.sweep_id == sweep.id, Trial.replicate_of.is_(None), is_measured)
        .order_by(Trial.number.desc())
        .limit(MOST_TRIALS)
    ).all()
    judged = [
        _Judged(row.number, TrialState(row.state), row.violations or {}, row.feasible, row.noise or _NO_NOISE)
        for row in rows
    ]
    limits = [_Limit(parse_constraint(text)) for text in sweep.document.get("constraints", [])]
    broken = [each for each in (_broken(limit, judged) for limit in limits) if each is not None]
    feasible = sum(trial.feasible is True and trial.state == TrialState.COMPLETE for trial in judged)
    not_judged = sum(trial.feasible is None for trial in judged)
    loosened = _loosened(limits, judged, feasible)
    return ConstraintSummary(
        sweep=sweep.id,
        judged=len(judged) - not_judged,
        not_judged=not_judged,
        feasible=feasible,
        constraints=broken,
        loosened=loosened,
        says=[each.says for each in (*broken, *loosened)],
    )


def _broken(limit: _Limit, judged: Sequence[_Judged]) -> BrokenConstraint | None:
    text = limit.text
    missed = [trial for trial in judged if trial.miss(text) > 0]
    if not missed:
        return None
    nearest = min(missed, key=lambda trial: (trial.miss(text), trial.number))
    by = nearest.miss(text)
    undecided = sum(trial.is_undecided(text) for trial in judged)
    of = sum(text in trial.violations for trial in judged) - undecided
    says = (
        f"{len(missed):,} of {formatting.plural(of, 'trial')} broke {text}; the nearest, trial {nearest.number}, by "
        f"{limit.amount(by)}"
    )
    if (reach := limit.reach(nearest)) is not None:
        says += f" as measured, but {reach}"
    if undecided:
        says += f"; {formatting.plural(undecided, 'more trial')} cannot be judged by it"
    return BrokenConstraint(
        constraint=text, broken=len(missed), judged=of, undecided=undecided, nearest=nearest.number, by=by, says=says
    )


def _loosened(limits: Sequence[_Limit], judged: Sequence[_Judged], feasible: int) -> list[LoosenedLimits]:
    """For each wanted number of feasible trials the least loosening: the largest share of a limit is as small as it can
    be, and each limit no looser than these trials need."""
    scales = {limit: _scale(limit, judged) for limit in limits}

    def share(trial: _Judged) -> float:
        # A trial that is feasible as it is needs nothing, however noisy it is.
        return (
            0.0 if trial.feasible else max((limit.miss(trial) / scale for limit, scale in scales.items()), default=0.0)
        )

    reachable = [trial for trial in judged if all(limit.miss(trial) < UNREACHABLE for limit in limits)]
    ordered = sorted(reachable, key=lambda trial: (share(trial), trial.number))
    found: list[LoosenedLimits] = []
    for wanted in WANTED:
        if feasible < wanted <= len(ordered):
            found.append(_limits_for(ordered[:wanted], limits))
    return [each for each in found if each.limits]


def _limits_for(trials: Sequence[_Judged], limits: Sequence[_Limit]) -> LoosenedLimits:
    by = {limit: max(0.0 if trial.feasible else limit.miss(trial) for trial in trials) for limit in limits}
    loosened = [limit.loosened(amount) for limit, amount in by.items() if amount > 0]
    unknown = [limit.text for limit in limits if any(_is_unknown(limit, trial) for trial in trials)]
    numbers = [trial.number for trial in trials]
    says = (
        f"for {formatting.plural(len(trials), 'feasible trial')} allow {' and '.join(each.allow for each in loosened)} "
        f"({_listed(numbers)})"
    )
    if reached := _reached(trials, by):
        says += f": a limit has to hold with the noise, and {' and '.join(reached)}"
    if unknown:
        says += f"; whether they would keep {' and '.join(unknown)} is not known, as they were not trained"
    return LoosenedLimits(feasible=len(trials), limits=loosened, trials=numbers, unknown=unknown, says=says)


def _reached(trials: Sequence[_Judged], by: Mapping[_Limit, float]) -> list[str]:
    """Of each limit that is as loose as it is for the noise of a trial: up to where that trial's interval reaches."""
    deciding = (
        (limit, next(each for each in trials if limit.miss(each) == amount)) for limit, amount in by.items() if amount
    )
    return [reach for limit, trial in deciding if (reach := limit.reach(trial)) is not None]


def _is_unknown(limit: _Limit, trial: _Judged) -> bool:
    """Whether a trial was stopped before the constraint could be judged."""
    is_early = trial.state == TrialState.INFEASIBLE and limit.constraint.stage == "quality"
    return is_early and limit.text not in trial.violations


def _scale(limit: _Limit, judged: Sequence[_Judged]) -> float:
    """What a violation of it is weighed by against those of others: its limit, or its usual violation."""
    if limit.of_metric is not None and limit.of_metric.value:
        return abs(limit.of_metric.value)
    misses = [miss for trial in judged if 0 < (miss := trial.miss(limit.text)) < UNREACHABLE]
    return median(misses) if misses else 1.0


def _listed(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    return f"trials {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _written(limit: float) -> str:
    """As a document writes it: 1.18, 2.346e6."""
    mantissa, _, exponent = f"{limit:.{DIGITS}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _rounded(value: float, *, up: bool) -> float:
    """To four significant digits, away from what it has to allow."""
    if value == 0 or not math.isfinite(value):
        return value
    exact = Decimal(repr(value))
    # What is a rounding error of the difference of two floats is no reason for another digit.
    exact = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 11))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - DIGITS + 1), ROUND_CEILING if up else ROUND_FLOOR))
