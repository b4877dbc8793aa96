"""Which trial is trained again next: a race of the trials that could be on the front.

A race is of one objective that training makes noisy; the others are the same at every training. Two trials are rivals
if one is on the front and the other is no better than it in the objectives that are not noisy: then their losses
alone decide whether the other one belongs there. The order of two rivals is known when their means lie further apart
than t standard errors of the difference, with the deviation over seeds pooled over all trials that were trained again
(racing: Maron and Moore 1997, "The Racing Algorithm"; t: two-sided 95 %).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.results.pareto import dominated

_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom."""
_NORMAL = 2.0
"""For more of them, nearly."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contender:
    """A feasible complete trial, with what is known of its noisy objective."""

    number: int
    costs: tuple[float, ...]
    """Of the objectives, in order; lower is better. The noisy one is a mean over trainings."""
    trainings: int
    squares: float
    """Summed squared deviations of the trainings from their mean."""
    awaited: int = 0
    """Further trainings that have not ended."""
    asked: int = 0
    """Further trainings so far, whatever became of them."""


class Race:
    """The race of one sweep: what comes next depends on the contenders alone."""

    def __init__(self, noisy: int, most: int) -> None:
        """`noisy` is the objective's place among the costs; `most`: further trainings of one trial."""
        self._noisy = noisy
        self._most = most

    def next(self, contenders: Mapping[str, Contender]) -> str | None:
        """The trial that is to be trained again; None if the order is known, or nothing may be trained more often.

        First each trial of the front that was trained once, then of the two rivals whose order is least clear the one
        that was trained less often.
        """
        ids = sorted(contenders, key=lambda each: contenders[each].number)
        if len(ids) < 2:
            return None
        field = [contenders[each] for each in ids]
        costs = np.array([each.costs for each in field], dtype=np.float64)
        front = ~dominated(costs, costs)
        once = [
            index
            for index, each in enumerate(field)
            if front[index] and each.trainings + each.awaited == 1 and self._may_train(each)
        ]
        if once:
            return ids[min(once, key=lambda index: (costs[index, self._noisy], index))]
        deviation = pooled_deviation(field)
        if deviation is None:
            return None
        pairs = sorted(self._unclear(field, costs, np.flatnonzero(front), deviation))
        return next((ids[index] for _, index in pairs), None)

    def _may_train(self, contender: Contender) -> bool:
        return max(contender.asked, contender.trainings - 1) < self._most

    def _unclear(
        self, field: Sequence[Contender], costs: Floats, front: NDArray[np.intp], deviation: float
    ) -> Iterator[tuple[float, int]]:
        """For each pair of rivals whose order is not known how clear it is, and which of them to train."""
        means = costs[:, self._noisy]
        exact = np.delete(costs, self._noisy, axis=1)
        counts = np.array([each.trainings + each.awaited for each in field], dtype=np.float64)
        able = np.array([self._may_train(each) for each in field])
        for member in front:
            errors = deviation * np.sqrt(1 / counts + 1 / counts[member])
            clear = np.abs(means - means[member]) / np.maximum(errors, 1e-300)
            rivals = (exact >= exact[member]).all(axis=1) & (clear < 1.0) & (able | able[member])
            rivals[member] = False
            for rival in np.flatnonzero(rivals):
                pair = sorted((int(rival), int(member)), key=lambda index: (counts[index], means[index], index))
                yield float(clear[rival]), next(index for index in pair if able[index])


def pooled_deviation(contenders: Sequence[Contender]) -> float | None:
    """t times the deviation of one training over seeds, pooled; None if nothing was trained twice."""
    degrees = sum(each.trainings - 1 for each in contenders)
    if degrees < 1:
        return None
    t = _T[degrees - 1] if degrees <= len(_T) else _NORMAL
    return t * math.sqrt(sum(each.squares for each in contenders) / degrees)
