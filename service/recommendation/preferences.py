"""What a caller wants of a recommendation: `prefer`, `within` and `weight`, as they stand in a query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from layers.expressions.metric_names import MetricNames
from layers.metrics import Goal
from layers.problems import below, shown
from service.errors import Problem, UnprocessableError


@dataclass(frozen=True, slots=True)
class Within:
    """Keep what is at most `amount` worse in `metric` than the front's best: a share of that, or in its unit."""

    metric: str
    amount: float
    is_share: bool

    def limit(self, best: float, goal: Goal) -> float:
        """The worst value that is kept."""
        room = abs(best) * self.amount if self.is_share else self.amount
        return best + room if goal == "minimize" else best - room

    def __str__(self) -> str:
        return f"{self.metric}:{self.amount * 100:g}%" if self.is_share else f"{self.metric}:{self.amount:g}"


@dataclass(frozen=True, slots=True)
class SelectionPreferences:
    """How to choose on the front. Empty: the trial nearest to the ideal point."""

    prefer: tuple[str, ...] = ()
    within: tuple[Within, ...] = ()
    weights: dict[str, float] = field(default_factory=dict[str, float])

    def __bool__(self) -> bool:
        return bool(self.prefer or self.within or self.weights)

    def __str__(self) -> str:
        """As a query writes them: prefer=latency_ms_p50, within=validation_loss:1%."""
        found = [f"prefer={metric}" for metric in self.prefer]
        found += [f"within={limit}" for limit in self.within]
        found += [f"weight={metric}:{weight:g}" for metric, weight in self.weights.items()]
        return ", ".join(found)

    @classmethod
    def parse(
        cls,
        objectives: Sequence[str],
        metrics: MetricNames,
        *,
        prefer: Sequence[str],
        within: Sequence[str],
        weight: Sequence[str],
    ) -> SelectionPreferences:
        """Read a query's values. Raises UnprocessableError with each that is wrong and what to try."""
        problems: list[Problem] = []
        named = [_full_name(below("/prefer", name), name, objectives, metrics, problems) for name in prefer]
        preferred = [name for name in named if name is not None]
        limits = [found for text in within if (found := _within(text, objectives, metrics, problems)) is not None]
        weights: dict[str, float] = {}
        for text in weight:
            given = _weight(text, objectives, metrics, problems)
            if given.keys() & weights.keys():
                problems.append(
                    Problem(below("/weight", text), "this objective has a weight already", "give it one weight")
                )
            weights |= given
        if prefer and weight:
            problems.append(Problem("/weight", "prefer and weight are both given", "give one of them"))
        if len({limit.metric for limit in limits}) < len(limits):
            problems.append(Problem("/within", "a metric has two limits", "give one limit a metric"))
        if objectives and all(weights.get(name, 1.0) == 0 for name in objectives):
            problems.append(Problem("/weight", "all weights are 0", "give one objective a weight above 0"))
        if problems:
            detail = "; ".join(f"{each.pointer.strip('/')}: {each.detail}" for each in problems)
            raise UnprocessableError(f"invalid preferences: {detail}", problems=problems)
        return cls(tuple(dict.fromkeys(preferred)), tuple(limits), weights)


def _full_name(
    pointer: str, name: str, objectives: Sequence[str], metrics: MetricNames, problems: list[Problem]
) -> str | None:
    if name in metrics:
        return metrics.resolve(name)
    if (wrong := metrics.wrong_shape(name)) is not None:
        problems.append(Problem(pointer, wrong.message, wrong.remedy))
        return None
    remedy = f"an objective ({', '.join(objectives)}) or another metric, such as parameter_count"
    problems.append(Problem(pointer, f"{shown(name)} is not a metric", remedy))
    return None


def _within(text: str, objectives: Sequence[str], metrics: MetricNames, problems: list[Problem]) -> Within | None:
    written, separator, amount = text.partition(":")
    name = _full_name(below("/within", text), written, objectives, metrics, problems)
    if name is None:
        return None
    number = _number(amount.removesuffix("%"))
    if not separator or number is None:
        remedy = f"write {name}:1% (of the front's best) or {name}:0.02 (in its unit)"
        problems.append(Problem(below("/within", text), f"{shown(amount)} is not an amount", remedy))
        return None
    is_share = amount.endswith("%")
    return Within(name, number / 100 if is_share else number, is_share)


def _weight(text: str, objectives: Sequence[str], metrics: MetricNames, problems: list[Problem]) -> dict[str, float]:
    written, separator, amount = text.partition(":")
    name = metrics.known(written)
    if name not in objectives:
        problems.append(
            Problem(below("/weight", text), f"{shown(name)} is no objective", f"one of: {', '.join(objectives)}")
        )
        return {}
    number = _number(amount)
    if not separator or number is None:
        problems.append(
            Problem(below("/weight", text), f"{shown(amount)} is not a weight", f"write {name}:2; the others have 1")
        )
        return {}
    return {name: number}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
