"""Where the front stands for a training that is under way: costs of several objectives, of which smaller is better."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KEPT_SHARE = 1 / 3
"""Of those that reached a rung, how many go on by successive halving (eta = 3)."""

HALVING_RUNGS = (0, 2)
"""Those at 1/9 and 1/3 of the steps: each gives three times as much as the one before."""


def bound_of(others: Floats, costs: Floats, at: Floats) -> float:
    """What a training has to stay below to be on the front: the least cost of those at least as good elsewhere.

    `others` [trials, other objectives] and `costs` [trials] are those of the feasible complete trials; `at` are the
    costs of this one in the other objectives. Infinite if nothing is as good: then it is on the front in any case.
    """
    rivals = (others <= at).all(axis=1)
    return float(costs[rivals].min()) if rivals.any() else math.inf


def goes_on(costs: Floats) -> bool:
    """Whether the last row is among the best third by non-dominated sorting, and by crowding within a rank.

    Deb, Pratap, Agarwal and Meyarivan 2002 (NSGA-II) for the order; Schmucker et al. 2021 (MO-ASHA) for its use at
    rungs. Those that are there at the time count, however many come later.
    """
    last = len(costs) - 1
    kept = math.ceil(len(costs) * KEPT_SHARE)
    waiting = np.arange(len(costs))
    while kept > 0:
        front = waiting[_is_front(costs[waiting])]
        if last in front:
            crowding = _crowding(costs[front])
            return int(np.sum(crowding > crowding[front == last])) < kept
        kept -= len(front)
        waiting = np.setdiff1d(waiting, front)
    return False


def _is_front(costs: Floats) -> NDArray[np.bool_]:
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    return np.logical_not((no_worse & better).any(axis=0))


def _crowding(costs: Floats) -> Floats:
    """How far each point's neighbours are from each other, in shares of the range; infinite at the ends."""
    distance = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] or 1.0
        distance[order[[0, -1]]] = math.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance
