"""By how much a point is expected to raise the hypervolume of a front, of normal predictions that are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.scheduling.surrogate.columns import Booleans, Floats
from service.scheduling.surrogate.objectives import Objective

_SAMPLES = 1536
_BEYOND = 0.1
"""The reference point lies beyond the worst costs by this share of their range; as far is looked beyond the best."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Means and deviations of what is modelled: a row a point, a column an objective."""

    means: Floats
    deviations: Floats

    def __len__(self) -> int:
        return len(self.means)

    def of(self, rows: NDArray[np.intp]) -> Prediction:
        """Those of some points."""
        return Prediction(self.means[rows], self.deviations[rows])

    def with_more(self, other: Prediction) -> Prediction:
        """Those of further points too."""
        return Prediction(
            np.concatenate([self.means, other.means]),
            np.concatenate([self.deviations, other.deviations]),
        )


def reference_point(costs: Floats) -> Floats:
    """From where hypervolume is measured: a little beyond the worst of all costs."""
    low, high = costs.min(axis=0), costs.max(axis=0)
    return high + _BEYOND * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-12))


def non_dominated(costs: Floats) -> Booleans:
    """Which rows no other row betters; of equal ones the first."""
    kept = np.zeros(len(costs), dtype=np.bool_)
    if not len(costs):
        return kept
    # What betters a row comes before it in this order.
    order = np.lexsort(costs.T[::-1])
    if costs.shape[1] == 2:
        second = costs[order, 1]
        kept[order] = np.append(True, second[1:] < np.minimum.accumulate(second)[:-1])
        return kept
    front = np.empty((0, costs.shape[1]))
    for row in order:
        if not (front <= costs[row]).all(axis=1).any():
            kept[row] = True
            front = np.concatenate([front, costs[row][None]])
    return kept


class Improvement:
    """What points are expected to add to the hypervolume of a front, which can grow by what was chosen already.

    Exact for one and two objectives, from three on over fixed places that are not dominated.
    """

    def __init__(
        self, objectives: Sequence[Objective], front: Floats, reference: Floats, predicted: Prediction
    ) -> None:
        """`predicted` says how far beyond the front to look, if there are three objectives or more."""
        self._objectives = objectives
        self._reference = reference
        self._front = front[(front < reference).all(axis=1)]
        self._volume = 0.0
        self._places = np.empty((0, len(objectives)))
        if len(objectives) > 2:
            self._place(predicted)

    def of(self, predicted: Prediction) -> Floats:
        """The gain of each point."""
        if len(self._objectives) == 1:
            best = min(float(self._front.min(initial=np.inf)), float(self._reference[0]))
            return self._objectives[0].gain(np.array(best), predicted.means[:, 0], predicted.deviations[:, 0])
        return self._over_strips(predicted) if len(self._objectives) == 2 else self._over_places(predicted)

    def add(self, costs: Floats) -> None:
        """Count a row of costs as reached."""
        if not (costs < self._reference).all():
            return
        together = np.concatenate([self._front, costs[None]])
        self._front = together[non_dominated(together)]
        self._places = self._places[~(costs <= self._places).all(axis=1)]

    def _over_strips(self, predicted: Prediction) -> Floats:
        front = self._front[np.argsort(self._front[:, 0])]
        ends = np.append(front[:, 0], self._reference[0])[None, :]
        heights = np.append(self._reference[1], front[:, 1])[None, :]
        first, second = self._objectives
        left_of = first.gain(ends, predicted.means[:, :1], predicted.deviations[:, :1])
        widths = np.diff(left_of, axis=1, prepend=0.0)
        return (widths * second.gain(heights, predicted.means[:, 1:], predicted.deviations[:, 1:])).sum(axis=1)

    def _place(self, predicted: Prediction) -> None:
        hoped = [
            objective.cost(predicted.means[:, index] - predicted.deviations[:, index]).min()
            for index, objective in enumerate(self._objectives)
        ]
        best = np.minimum(self._front.min(axis=0, initial=np.inf), np.minimum(np.array(hoped), self._reference))
        low = best - _BEYOND * (self._reference - best)
        places = low + _spread(_SAMPLES, len(self._objectives)) * (self._reference - low)
        for row in self._front:
            places = places[~(row <= places).all(axis=1)]
        self._places = places
        self._volume = float(np.prod(self._reference - low)) / _SAMPLES

    def _over_places(self, predicted: Prediction) -> Floats:
        chance = np.ones((len(predicted), len(self._places)))
        for index, objective in enumerate(self._objectives):
            mean, deviation = predicted.means[:, index, None], predicted.deviations[:, index, None]
            chance *= objective.chance(self._places[None, :, index], mean, deviation)
        return chance.sum(axis=1) * self._volume


def _spread(count: int, dimensions: int) -> Floats:
    """Points that fill the unit cube evenly: the additive recurrence of the generalized golden ratio."""
    ratio = 2.0
    for _ in range(64):
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0
