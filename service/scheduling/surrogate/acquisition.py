"""By how much a point is expected to raise the hypervolume of a front, of normal predictions that are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def reference_point(costs: Floats) -> Floats:
    """From where hypervolume is measured: a little beyond the worst of all costs."""
    low, high = costs.min(axis=0), costs.max(axis=0)
    return high + _BEYOND * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-12))


def non_dominated(costs: Floats) -> Booleans:
    """Which rows no other row betters; of equal ones the first."""
    kept = np.zeros(len(costs), dtype=np.bool_)
    order = np.lexsort(costs.T[::-1])
    front = np.empty((0, costs.shape[1]))
    for row in order:
        # What betters a row comes before it in this order.
        if not (front <= costs[row]).all(axis=1).any():
            kept[row] = True
            front = np.concatenate([front, costs[row][None]])
    return kept


def expected_improvement(
    objectives: Sequence[Objective], predicted: Prediction, front: Floats, reference: Floats
) -> Floats:
    """Of each point: exact for one and two objectives, from three on over fixed places that are not dominated."""
    front = front[(front < reference).all(axis=1)]
    if len(objectives) == 1:
        best = min(float(front.min(initial=np.inf)), float(reference[0]))
        return objectives[0].gain(np.array(best), predicted.means[:, 0], predicted.deviations[:, 0])
    if len(objectives) == 2:
        return _over_strips(objectives, predicted, front, reference)
    return _over_places(objectives, predicted, front, reference)


def _over_strips(objectives: Sequence[Objective], predicted: Prediction, front: Floats, reference: Floats) -> Floats:
    front = front[np.argsort(front[:, 0])]
    ends = np.append(front[:, 0], reference[0])[None, :]
    heights = np.append(reference[1], front[:, 1])[None, :]
    first, second = objectives
    left_of = first.gain(ends, predicted.means[:, :1], predicted.deviations[:, :1])
    widths = np.diff(left_of, axis=1, prepend=0.0)
    return (widths * second.gain(heights, predicted.means[:, 1:], predicted.deviations[:, 1:])).sum(axis=1)


def _over_places(objectives: Sequence[Objective], predicted: Prediction, front: Floats, reference: Floats) -> Floats:
    hoped = [
        objective.cost(predicted.means[:, index] - predicted.deviations[:, index]).min()
        for index, objective in enumerate(objectives)
    ]
    best = np.minimum(front.min(axis=0, initial=np.inf), np.minimum(np.array(hoped), reference))
    low = best - _BEYOND * (reference - best)
    places = low + _spread(_SAMPLES, len(objectives)) * (reference - low)
    for row in front:
        places = places[~(row <= places).all(axis=1)]
    chance = np.ones((len(predicted.means), len(places)))
    for index, objective in enumerate(objectives):
        mean, deviation = predicted.means[:, index, None], predicted.deviations[:, index, None]
        chance *= objective.chance(places[None, :, index], mean, deviation)
    return chance.sum(axis=1) * (np.prod(reference - low) / _SAMPLES)


def _spread(count: int, dimensions: int) -> Floats:
    """Points that fill the unit cube evenly: the additive recurrence of the generalized golden ratio."""
    ratio = 2.0
    for _ in range(64):
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0
