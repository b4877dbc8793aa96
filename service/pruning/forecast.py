"""What a training will come to, from what it shows at a rung and where the finished ones went from there.

A linear regression of the final value on what is seen at the rung, with or without products of the columns: whichever
foretells the finished ones better, each left out of the fit. What is still open has Student's t: of few finished
trainings little is certain, and little is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MODEL_VERSION = 2
"""Of the rules by which trainings are judged: a decision says by which it was made."""

LEAST_FINISHED = 10
"""Finished trainings before anything is predicted."""

LEAST_FREEDOM = 10
"""Finished trainings more than columns, for products: with fewer a fit does not know how wrong it is."""

_RIDGE = 1e-3
"""Of the columns at unit variance, a training: columns that say the same leave the fit determined."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A final value: Student's t around `mean`."""

    mean: float
    scale: float
    freedom: float

    @property
    def spread(self) -> float:
        """Its standard deviation."""
        return self.scale * math.sqrt(self.freedom / (self.freedom - 2))

    def chance_below(self, bound: float) -> float:
        """The probability to come out below a bound."""
        if math.isinf(bound):
            return 1.0 if bound > 0 else 0.0
        if self.scale == 0:
            return 1.0 if self.mean < bound else 0.0
        # Imported where it is taken: it would slow every start.
        from scipy import special

        return float(special.stdtr(self.freedom, (bound - self.mean) / self.scale))


def forecast(seen: Floats, ends: Floats, at: Floats) -> Forecast | None:
    """The final value of a training that shows `at`; None if too few have finished.

    `seen` has a row a finished training, and a column for each thing that is seen of it; `ends` are their final values.
    """
    if len(ends) < LEAST_FINISHED:
        return None
    fits = [_Fit(columns, ends) for columns in _designs(np.r_[seen, at[None]])]
    return min(fits, key=lambda fit: fit.left_out_error).forecast()


def _designs(rows: Floats) -> Iterator[Floats]:
    """The columns of all trainings, of which the last one is to be foretold: as they are, and with their products."""
    center, width = rows[:-1].mean(axis=0), rows[:-1].std(axis=0)
    varies = width > 1e-12 * np.maximum(1.0, np.abs(center))
    columns = (rows[:, varies] - center[varies]) / width[varies]
    left, right = np.triu_indices(columns.shape[1])
    yield np.c_[np.ones(len(rows)), columns]
    if len(rows) - 2 - columns.shape[1] - len(left) >= LEAST_FREEDOM:
        yield np.c_[np.ones(len(rows)), columns, columns[:, left] * columns[:, right]]


class _Fit:
    """One regression, with the row that it is for."""

    def __init__(self, design: Floats, ends: Floats) -> None:
        columns, self._at = design[:-1], design[-1]
        penalty = np.full(columns.shape[1], _RIDGE * len(ends))
        penalty[0] = 0.0
        self._inverse = np.linalg.inv(columns.T @ columns + np.diag(penalty))
        self._weights = self._inverse @ columns.T @ ends
        residuals = ends - columns @ self._weights
        leverage = np.einsum("ij,jk,ik->i", columns, self._inverse, columns)
        self._freedom = len(ends) - columns.shape[1]
        self.left_out_error = float(np.mean((residuals / (1.0 - leverage)) ** 2))
        """Mean square of what each training's end is off, foretold by the others: what it is off in the fit flatters,
        as those that finished are the ones that looked well."""

    def forecast(self) -> Forecast:
        open_variance = self.left_out_error * (1.0 + float(self._at @ self._inverse @ self._at))
        return Forecast(float(self._at @ self._weights), math.sqrt(open_variance), float(self._freedom))
