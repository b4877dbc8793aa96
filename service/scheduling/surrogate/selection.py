"""The best of many points, one after the other, each as if those before it had ended as they are predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.scheduling.surrogate.acquisition import Improvement, Prediction
from service.scheduling.surrogate.columns import Floats
from service.scheduling.surrogate.features import Features, crowding
from service.scheduling.surrogate.objectives import Objective

_AT_ONCE = 16
"""Points that are judged together: few are judged in vain, and an array is worth its call."""
_COUNTED_TOGETHER = 1 / 8
"""The part of many points that is counted for the front together: until then they are only kept apart."""
_GONE = -1.0


class Selection:
    """Points with what each is worth: its expected improvement times its chance, less where much was asked.

    A model expects what lies between two values also where there is a step, for ever: what is crowded is worth less.
    Worth only falls as points are chosen: what was known of a point before bounds it, so that few are judged again.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        improvement: Improvement,
        predicted: Prediction,
        chance: Floats,
        seen: Features,
        asked: Features,
    ) -> None:
        """`chance` is that of keeping every constraint, `asked` are the points of all earlier asks."""
        self._objectives = objectives
        self._improvement = improvement
        self._predicted = predicted
        self._chance = chance
        self._seen = seen
        self._asked = asked
        self._taken = np.empty(0, dtype=np.intp)
        self._crowding = np.full(len(seen), np.nan)
        self._worth = improvement.of(predicted) * chance
        self._unknown = chance * predicted.deviations.sum(axis=1)
        self._is_judged = np.zeros(len(seen), dtype=np.bool_)

    def leaders(self, count: int) -> NDArray[np.intp]:
        """The rows of so many points that are worth most, best first."""
        while True:
            order = np.argsort(-self._worth, kind="stable")
            best = order[:count]
            if self._is_judged[best].all():
                break
            self._judge(order[~self._is_judged[order]][:_AT_ONCE])
        if len(best) and self._worth[best[0]] <= 0:
            # Nothing promises anything: what is known least.
            return np.argsort(-self._unknown, kind="stable")[:count]
        return best

    def choose(self, count: int, is_allowed: Callable[[int], bool]) -> NDArray[np.intp]:
        """So many rows, fewer if no more are allowed, in the order in which they are chosen."""
        together = max(1, int(count * _COUNTED_TOGETHER))
        for _ in range(len(self._seen)):
            row = int(self.leaders(1)[0])
            if self._unknown[row] == _GONE:
                break
            if is_allowed(row):
                self._take(row)
                if len(self._taken) == count:
                    break
            self._worth[row] = self._unknown[row] = _GONE
            self._is_judged[row] = True
            if len(self._taken) % together == 0:
                self._is_judged[self._worth != _GONE] = False
        return self._taken

    def _take(self, row: int) -> None:
        means = self._predicted.means[row]
        costs = [float(objective.cost(mean)) for objective, mean in zip(self._objectives, means, strict=True)]
        self._improvement.add(np.array(costs))
        self._taken = np.append(self._taken, row)
        known = np.flatnonzero(~np.isnan(self._crowding) & (self._worth > 0))
        before = self._crowding[known]
        after = before + crowding(self._seen.of(known), self._seen.of(self._taken[-1:]))
        self._worth[known] *= (1.0 + before) / (1.0 + after)
        self._crowding[known] = after

    def _judge(self, rows: NDArray[np.intp]) -> None:
        fresh = rows[np.isnan(self._crowding[rows])]
        if len(fresh):
            asked, taken = self._seen.of(fresh), self._seen.of(self._taken)
            self._crowding[fresh] = crowding(asked, self._asked) + crowding(asked, taken)
        gained = self._improvement.of(self._predicted.of(rows))
        self._worth[rows] = gained * self._chance[rows] / (1.0 + self._crowding[rows])
        self._is_judged[rows] = True
