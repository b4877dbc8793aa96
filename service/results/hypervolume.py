"""How the front grew: the share of the space of objectives that the trials so far dominate.

The space is the box between the best value of each objective and a reference point: the worst value that the final
front has, and a tenth of its range beyond. A front of one point spans no box: a share of one would say nothing. The
share is counted on a fixed Sobol sequence of points in that box, so it takes the same time for any number of
objectives; each point is dominated from some trial on.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from service.database.models import Sweep
from service.results import schemas as result_schemas
from service.results.columns import Columns, Floats
from service.results.pareto import Ranking
from service.sweeps import schemas as sweep_schemas

POINTS_LOG2 = 12
POINTS = 2**POINTS_LOG2
STEPS = 200
"""Most values of the history that are answered: where it grew most stays."""
_BEYOND = 0.1
_CHUNK = 4096


def history(columns: Columns, sweep: Sweep) -> result_schemas.Hypervolume:
    """The dominated share after each trial that raised it, in the order in which trials ended."""
    objectives = [sweep_schemas.Objective(**objective) for objective in sweep.objectives]
    signs = np.array([-1.0 if objective.goal == "maximize" else 1.0 for objective in objectives])
    costs = np.stack([columns.named(objective.metric).values for objective in objectives], axis=1) * signs
    ended = columns.competing & ~np.isnan(costs).any(axis=1)
    order = np.flatnonzero(ended)
    order = order[np.lexsort((columns.number[order], columns.ended_at[order]))]
    costs = costs[order]
    nothing = result_schemas.Hypervolume(
        sweep=sweep.id, objectives=objectives, reference={}, steps=[], trials=len(costs)
    )
    if not len(costs):
        return nothing
    first = columns.rank[order] == 1
    front = costs[first] if first.any() else _front(costs)
    best, worst = front.min(axis=0), front.max(axis=0)
    if (best == worst).all():
        return nothing.model_copy(update={"reason": _why_no_box(costs)})
    span = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1e-12))
    reference = worst + _BEYOND * span
    scaled = (costs - best) / (reference - best)
    raised = _dominated_since(scaled)
    positions, counts = np.unique(raised[raised < len(costs)], return_counts=True)
    shares = np.cumsum(counts) / POINTS
    kept = _thinned(shares)
    return result_schemas.Hypervolume(
        sweep=sweep.id,
        objectives=objectives,
        reference={
            objective.metric: float(value) for objective, value in zip(objectives, reference * signs, strict=True)
        },
        steps=[
            result_schemas.HypervolumeStep(
                trials=int(positions[step]) + 1,
                number=int(columns.number[order[positions[step]]]),
                ended_at=float(columns.ended_at[order[positions[step]]]),
                share=float(shares[step]),
            )
            for step in kept
        ],
        trials=len(costs),
    )


def _front(costs: Floats) -> Floats:
    """Of trials that have no ranks: those of a confirmation."""
    ranking = Ranking(["minimize"] * costs.shape[1], last_rank=2)
    for position, row in enumerate(costs):
        ranking.add(str(position), row.tolist())
    return costs[[int(position) for position in ranking.front]]


def _why_no_box(costs: Floats) -> str:
    if len(costs) > 1 and (costs == costs[0]).all():
        return f"no objective varies over the {len(costs)} feasible trials"
    return "the front is one point: it spans no box that trials could have a share of"


@cache
def _points(dimensions: int) -> Floats:
    # Imported when it is asked for: SciPy's statistics would add a second to every start.
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, scramble=False).random_base2(POINTS_LOG2)


def _dominated_since(costs: Floats) -> NDArray[np.intp]:
    """For each point of the box, which trial (by position) dominates it first; their number if none does."""
    points = _points(costs.shape[1])
    since = np.full(POINTS, len(costs), dtype=np.intp)
    remaining = np.arange(POINTS)
    front = np.empty((0, costs.shape[1]))
    inside = np.flatnonzero((costs < 1).all(axis=1))
    for start in range(0, len(inside), _CHUNK):
        for position in _not_behind(inside[start : start + _CHUNK], costs, front):
            row = costs[position]
            if (front <= row).all(axis=1).any():
                continue
            front = np.concatenate([front[~(row <= front).all(axis=1)], row[None, :]])
            hit = (row <= points[remaining]).all(axis=1)
            since[remaining[hit]] = position
            remaining = remaining[~hit]
    return since


def _not_behind(some: NDArray[np.intp], costs: Floats, front: Floats) -> NDArray[np.intp]:
    """Those of `some` that nothing in `front` betters: what an earlier trial betters dominates nothing new."""
    block = costs[some]
    # Those that dominate most come first: few are left for the others.
    for row in front[np.argsort(-np.prod(1 - front, axis=1))]:
        ahead = ~(row <= block).all(axis=1)
        some, block = some[ahead], block[ahead]
    return some


def _thinned(shares: Floats) -> NDArray[np.intp]:
    """At most STEPS of the steps: the first that reaches each of as many even heights, and the last."""
    if len(shares) <= STEPS:
        return np.arange(len(shares))
    heights = np.linspace(shares[0], shares[-1], STEPS)
    return np.unique(np.searchsorted(shares, heights))
