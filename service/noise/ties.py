"""Dominance within noise: a trial that the front betters by less than its latencies are known to is tied with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.noise import StoredNoise
from service.database.models import Sweep, Trial

MOST_OF_THE_FRONT = 1_000
"""Trials of the front that are compared with, the first ones."""

MOST_COMPARED = 1_000
"""Trials behind the front of a sweep up to which all are compared with it."""

FRONT = 1


class _Costs(NamedTuple):
    """A trial's objectives, smaller is better: the figures, and the bounds of their intervals."""

    figures: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


def tied_with_the_front(session: Session, sweep: Sweep, trials: Sequence[Trial]) -> set[str]:
    """The ids of those ranked behind the front that no trial of it betters for certain."""
    behind = [each for each in trials if (each.pareto_rank or 0) > FRONT]
    if not behind or not any(each.noise for each in behind):
        return set()
    rows = session.execute(
        sa.select(Trial.metrics, Trial.noise)
        .where(Trial.sweep_id == sweep.id, Trial.pareto_rank == FRONT)
        .order_by(Trial.number)
        .limit(MOST_OF_THE_FRONT)
    ).all()
    front = [_costs(sweep, metrics, noise) for metrics, noise in rows]
    return {each.id for each in behind if _is_tied(_costs(sweep, each.metrics, each.noise), front)}


def all_tied_with_the_front(session: Session, sweep: Sweep) -> set[str]:
    """The ids of those of the whole sweep; none if more than MOST_COMPARED are ranked behind the front."""
    behind = Trial.sweep_id == sweep.id, Trial.pareto_rank > FRONT
    # Asked first: a large sweep's trials would be read for nothing.
    one_too_many = session.scalars(sa.select(Trial.id).where(*behind).offset(MOST_COMPARED).limit(1)).first()
    if one_too_many is not None:
        return set()
    return tied_with_the_front(session, sweep, session.scalars(sa.select(Trial).where(*behind)).all())


def _is_tied(trial: _Costs, front: Sequence[_Costs]) -> bool:
    """Whether those that dominate the trial do so by less than the noise: some do, and none for certain."""
    dominating = [
        each for each in front if all(mine >= its for mine, its in zip(trial.figures, each.figures, strict=True))
    ]
    certain = any(high < low for each in dominating for high, low in zip(each.highs, trial.lows, strict=True))
    return bool(dominating) and not certain


def _costs(sweep: Sweep, metrics: Mapping[str, float], noise: StoredNoise | None) -> _Costs:
    figures: list[float] = []
    lows: list[float] = []
    highs: list[float] = []
    known = noise["figures"] if noise else {}
    for objective in sweep.objectives:
        name = objective["metric"]
        value = metrics[name]
        found = known.get(name)
        low, high = (found["low"], found["high"]) if found else (value, value)
        if objective["goal"] == "maximize":
            value, low, high = -value, -high, -low
        figures.append(value)
        lows.append(low)
        highs.append(high)
    return _Costs(tuple(figures), tuple(lows), tuple(highs))
