"""What validation finds out about a space: how many points it has, which share can become trials, and what rejects the rest."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from layers.base import ParameterError, Scalar
from layers.model import APPLIES
from layers.points import Completed, PointError, Rejection, Space

SAMPLES = 10_000
PROBES = 500
MAX_COMPLETIONS = 30_000
"""Models completed and judged in one enumeration: about three seconds. A space that needs more is sampled."""


@dataclass(frozen=True, slots=True)
class Survey:
    """`points`: distinct points, None where a parameter is continuous or they are more than 10 ** 6.

    `feasible_share` and `rejections` (rule -> share of the points that it rejects first) are over all distinct points,
    or, where `sampled`, over SAMPLES points as a random sampler draws them. `errors` are points that cannot be had at
    all, one example a parameter; `examples` is one rejection a rule.
    """

    points: int | None
    feasible_share: float
    sampled: bool
    rejections: dict[str, float]
    errors: tuple[PointError, ...] = ()
    examples: dict[str, Rejection] = field(default_factory=dict[str, Rejection])


Outcome = Rejection | PointError | None
Point = tuple[Mapping[str, Scalar], Mapping[str, PointError]]


class TooMuchWork(Exception):
    """An enumeration takes longer than a caller should wait."""


class Surveyor:
    """Judges many points of one space; what depends on few parameters is calculated once for each of their values."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._judged: dict[tuple[Scalar | None, ...], Outcome] = {}
        self._others = _named_beyond_model(space)
        self.completions = 0

    def judge(self, point: Point) -> Outcome:
        """Why a point becomes no trial: a rejection, or a PointError where it is no point at all."""
        environment, errors = point
        rejection = self._space.judge_rules(self._space.early_rules, environment)
        if rejection is not None:
            return rejection
        if errors:
            return next(iter(errors.values()))
        key = tuple(environment.get(name) for name in self._others)
        if key not in self._judged:
            if len(self._judged) > MAX_COMPLETIONS:
                self._judged.clear()
            self._judged[key] = self._judge_completed(self._space.values_of(environment))
            self.completions += 1
        return self._judged[key]

    def _judge_completed(self, values: Mapping[str, Scalar]) -> Outcome:
        try:
            completed: Completed = self._space.complete(values)
        except ParameterError as error:
            if error.path in APPLIES and error.path in values:
                return PointError(error.path, error.message, error.remedy)
            return Rejection(error.path, str(error), 1.0)
        return self._space.judge_completed(values, completed)


def _named_beyond_model(space: Space) -> tuple[str, ...]:
    return tuple(entry.name for entry in space.entries if entry.opening is not None or entry.derived is not None)


def survey(space: Space) -> Survey:
    """Judge every point of `space`, or SAMPLES of them where that would take longer than a few seconds. Deterministic."""
    points = space.points()
    surveyor = Surveyor(space)
    if points is not None and _expected_completions(space, surveyor, points) <= MAX_COMPLETIONS:
        try:
            return _tally(points, False, surveyor, space.walk(), points)
        except TooMuchWork:
            pass
    source = random.Random(0)
    return _tally(points, True, surveyor, (space.draw(source) for _ in range(SAMPLES)), SAMPLES)


def _expected_completions(space: Space, surveyor: Surveyor, points: int) -> float:
    if points <= MAX_COMPLETIONS:
        return points
    source = random.Random(0)
    for _ in range(PROBES):
        surveyor.judge(space.draw(source))
    return points * surveyor.completions / PROBES


def _tally(points: int | None, sampled: bool, surveyor: Surveyor, walk: Iterable[Point], total: int) -> Survey:
    feasible = 0
    rejected: Counter[str] = Counter()
    examples: dict[str, Rejection] = {}
    errors: dict[str, PointError] = {}
    limit = 2 * MAX_COMPLETIONS
    judge: Callable[[Point], Outcome] = surveyor.judge
    for point in walk:
        outcome = judge(point)
        if outcome is None:
            feasible += 1
        elif isinstance(outcome, Rejection):
            rejected[outcome.rule] += 1
            examples.setdefault(outcome.rule, outcome)
        else:
            errors.setdefault(outcome.name, outcome)
        if not sampled and surveyor.completions > limit:
            raise TooMuchWork
    shares = {rule: count / total for rule, count in rejected.most_common()}
    return Survey(points, feasible / total, sampled, shares, tuple(errors.values()), examples)
