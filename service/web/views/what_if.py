"""What would be recommended under other limits and preferences: the sliders, and what they come to on this front."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.summary_metrics import deciding_metrics
from layers.metrics import Goal
from service.common import formatting
from service.database.models import Sweep, Trial
from service.errors import UnprocessableError
from service.recommendation.choice import Candidate, Choice, candidate_of, front_of, goal_of, goals_of
from service.recommendation.preferences import SelectionPreferences, Within
from service.web.views.query import ANY_PERCENT, SweepQuery

WEIGHTS = (0.0, 4.0, 0.25)
"""Least, most and step of a weight."""


@dataclass(frozen=True, slots=True)
class LimitSlider:
    """How much worse than the front's best a metric may be, in per cent of the front's range."""

    metric: str
    percent: int
    comparison: str
    """at most, or at least"""
    text: str
    """The worst value that is kept."""


@dataclass(frozen=True, slots=True)
class WeightSlider:
    metric: str
    weight: float


@dataclass(frozen=True, slots=True)
class WhatIf:
    limits: list[LimitSlider]
    weights: list[WeightSlider]
    other_within: list[str]
    """Limits of the address that no slider shows."""
    preferred: Sequence[str]
    """What may be wanted best."""
    kept: int
    """Trials of the front within the limits."""
    front: int
    refused: UnprocessableError | None
    """Why no trial is chosen, if none is within the limits."""
    lines: str
    """The limits as JSON, for the picture: metric and value."""


def front_candidates(session: Session, sweep: Sweep) -> list[Candidate]:
    """The trials that can be chosen."""
    ranked = sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1).order_by(Trial.number)
    return front_of([candidate_of(trial) for trial in session.scalars(ranked)], goals_of(sweep))


def within_of(limits: Sequence[tuple[str, int]], front: Sequence[Candidate], sweep: Sweep) -> tuple[str, ...]:
    """The positions of sliders as limits of a query: `METRIC:AMOUNT`."""
    goals = goals_of(sweep)
    known = {name: found for name in _limited(sweep) if (found := _range(front, name, goals)) is not None}
    return tuple(
        f"{name}:{known[name][1] * (percent / ANY_PERCENT):.6g}"
        for name, percent in limits
        if name in known and percent < ANY_PERCENT
    )


def what_if(
    sweep: Sweep,
    query: SweepQuery,
    wishes: SelectionPreferences,
    front: Sequence[Candidate],
    choice: Choice | None,
    refused: UnprocessableError | None,
) -> WhatIf | None:
    """The sliders as they stand; None if there is nothing to choose from."""
    if len(front) < 2:
        return None
    goals = goals_of(sweep)
    wanted = {each.metric: each for each in wishes.within}
    sliders: list[LimitSlider] = []
    lines: list[dict[str, str | float]] = []
    for name in _limited(sweep):
        found = _range(front, name, goals)
        if found is None:
            continue
        sliders.append(slider := _slider(name, found, goal_of(name, goals), wanted.get(name)))
        if name in wanted:
            limit = wanted[name].limit(found[0], goal_of(name, goals))
            words = f"{formatting.label(name)} {slider.comparison} {slider.text}"
            lines.append({"metric": name, "value": limit, "constraint": words})
    shown = {each.metric for each in sliders}
    return WhatIf(
        limits=sliders,
        weights=[WeightSlider(name, wishes.weights.get(name, 1.0)) for name in goals] if len(goals) > 1 else [],
        other_within=[text for text in query.within if text.partition(":")[0] not in shown],
        preferred=sorted({name for each in front[:1] for name in each.metrics} | set(wishes.prefer)),
        kept=0 if choice is None else len(choice.kept),
        front=len(front),
        refused=refused,
        lines=json.dumps(lines),
    )


def _limited(sweep: Sweep) -> list[str]:
    """The metrics that have a slider: the objectives, and what constraints name."""
    return deciding_metrics(list(goals_of(sweep)), sweep.document)


def _range(front: Sequence[Candidate], metric: str, goals: Mapping[str, Goal]) -> tuple[float, float] | None:
    """The front's best value of a metric, and how far its worst one is from it; None if they are the same, or
    too far apart for a number."""
    values = [value for each in front if math.isfinite(value := each.value(metric))]
    if len(values) < 2 or min(values) == max(values):
        return None
    span = max(values) - min(values)
    if not math.isfinite(span):
        return None
    return (min(values) if goal_of(metric, goals) == "minimize" else max(values)), span


def _slider(metric: str, found: tuple[float, float], goal: Goal, wanted: Within | None) -> LimitSlider:
    best, span = found
    worst = best + span if goal == "minimize" else best - span
    limit = worst if wanted is None else wanted.limit(best, goal)
    percent = min(ANY_PERCENT, max(0, round(ANY_PERCENT * (abs(limit - best) / span))))
    comparison = "at most" if goal == "minimize" else "at least"
    return LimitSlider(metric, percent, comparison, formatting.metric(metric, limit))
