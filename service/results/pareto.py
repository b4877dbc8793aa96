"""Pareto ranks, kept up to date as points arrive.

A point dominates another when it is at least as good in every objective and better in one. Rank 1 is the front: what
nothing dominates; rank k + 1 is the front of what is left without ranks 1 to k. Equal points share a rank. The ranks
end with `LAST_RANK`, which is that of all the rest: what a point moves is bounded, however many there are.

Adding a point is the level update of Li, Deb, Zhang and Zhang (2017, "Efficient nondomination level update"): the new
point enters the first level that does not dominate it, and what it dominates there moves down, level by level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layers.metrics import Goal

Indices = NDArray[np.intp]

LAST_RANK = 50
"""With a single objective a new best point moves every other one by a rank: somewhere that has to end."""


class Ranking:
    """The non-dominated levels of a growing set of points. Not thread-safe.

    `goals` are those of the objectives, in the order of the values that `add` is given. From `last_rank` on, ranks are
    not told apart.
    """

    def __init__(self, goals: Sequence[Goal], *, last_rank: int = LAST_RANK) -> None:
        if not goals:
            raise ValueError("a ranking needs at least one objective")
        self._signs = np.array([-1.0 if goal == "maximize" else 1.0 for goal in goals])
        self._costs = np.empty((64, len(goals)))
        self._ids: list[str] = []
        self._known: dict[str, int] = {}
        self._ranks: list[int] = []
        self._levels: list[Indices] = []
        """Those of the ranks before the last: what is in the last one never leaves it."""
        self._most_levels = last_rank - 1

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, trial_id: object) -> bool:
        return trial_id in self._known

    def rank(self, trial_id: str) -> int:
        """The rank of a point that was added; KeyError for another."""
        return self._ranks[self._known[trial_id]]

    @property
    def ranks(self) -> dict[str, int]:
        """Every point's rank."""
        return dict(zip(self._ids, self._ranks, strict=True))

    @property
    def front(self) -> list[str]:
        """The points of rank 1, in the order in which they were added."""
        return [self._ids[index] for index in np.sort(self._levels[0])] if self._levels else []

    def add(self, trial_id: str, values: Sequence[float]) -> dict[str, int]:
        """Add a point; return the ranks that are new with it: its own, and those of the points that moved down.

        Raises ValueError for a point that is there already, a wrong number of values, or one that is not finite.
        """
        if trial_id in self._known:
            raise ValueError(f"{trial_id} is ranked already")
        point = np.asarray(values, dtype=float)
        if point.shape != self._signs.shape or not np.isfinite(point).all():
            raise ValueError(f"{trial_id}: {len(self._signs)} finite values are needed, not {list(values)!r}")
        cost = point * self._signs
        index = self._append(trial_id, cost)
        changed: dict[str, int] = {}
        level = self._first_level_beside(cost)
        moving = np.array([index], dtype=np.intp)
        while len(moving):
            for member in moving:
                self._ranks[member] = level + 1
                changed[self._ids[member]] = level + 1
            if level == self._most_levels:
                break
            if level == len(self._levels):
                self._levels.append(moving)
                break
            members = self._levels[level]
            pushed = dominated(self._costs[members], self._costs[moving])
            self._levels[level] = np.concatenate([members[~pushed], moving])
            moving = members[pushed]
            level += 1
        return changed

    def replace(self, trial_id: str, values: Sequence[float] | None) -> dict[str, int | None]:
        """Give a point that was added other values, or with None take it away; return the ranks that are new with it.

        A point that goes away has the rank None. Raises ValueError as `add` does, KeyError if the point is not
        there.
        """
        index, before = self._known[trial_id], self.ranks
        costs, ids = self._costs[: len(self._ids)] * self._signs, list(self._ids)
        self._clear()
        for position, each in enumerate(ids):
            if position != index:
                self.add(each, costs[position].tolist())
            elif values is not None:
                self.add(each, values)
        now = self.ranks
        return {each: now.get(each) for each in ids if now.get(each) != before[each]}

    def _clear(self) -> None:
        self._ids, self._known, self._ranks, self._levels = [], {}, [], []

    def _append(self, trial_id: str, cost: NDArray[np.float64]) -> int:
        index = len(self._ids)
        if index == len(self._costs):
            self._costs = np.concatenate([self._costs, np.empty_like(self._costs)])
        self._costs[index] = cost
        self._ids.append(trial_id)
        self._ranks.append(0)
        self._known[trial_id] = index
        return index

    def _first_level_beside(self, cost: NDArray[np.float64]) -> int:
        """The first level of which no member dominates `cost`: levels that dominate it all come before, so halve."""
        low, high = 0, len(self._levels)
        # If all levels are there, most points lie behind the last of them.
        middle = high - 1 if high == self._most_levels else high // 2
        while low < high:
            members = self._costs[self._levels[middle]]
            if bool(dominated(cost[None, :], members).any()):
                low = middle + 1
            else:
                high = middle
            middle = (low + high) // 2
        return low


def dominated(costs: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `costs` some row of `by` dominates (lower is better)."""
    beaten = np.zeros(len(costs), dtype=bool)
    # The shorter side is looped over, so that adding one point stays one pass over a level.
    if len(by) <= len(costs):
        for row in by:
            beaten |= (row <= costs).all(axis=1) & (row < costs).any(axis=1)
    else:
        for position, row in enumerate(costs):
            beaten[position] = bool(((by <= row).all(axis=1) & (by < row).any(axis=1)).any())
    return beaten
