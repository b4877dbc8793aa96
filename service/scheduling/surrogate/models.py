"""The models of costs and constraints. Their hyperparameters are fitted anew at fixed counts of asks only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.scheduling.surrogate.columns import Booleans, Floats
from service.scheduling.surrogate.features import Features
from service.scheduling.surrogate.gaussian_process import (
    GaussianProcess,
    fit_hyperparameters,
    starting_hyperparameters,
)
from service.scheduling.surrogate.history import History

_FIRST_COUNT = 10
_GROWTH = 1.25
_MOST_FITTED = 200
_FEWEST_FITTED = 6


def refit_count(history: History) -> int:
    """The asks below this number decide the hyperparameters: the largest count of a fixed series that has ended.

    It depends on what has ended, never on the order, so that a study that is rebuilt finds the same. An ask that takes
    very long holds nothing up: twice as many ended ones do.
    """
    waiting = history.numbers[~history.is_ended]
    ended = max(int(waiting.min()) if len(waiting) else len(history.numbers), int(history.is_ended.sum()) // 2)
    count, found = float(_FIRST_COUNT), 0
    while int(count) <= ended:
        found = int(count)
        count *= _GROWTH
    return found


class Model:
    """A Gaussian process of one quantity in its own unit."""

    def __init__(self, process: GaussianProcess, mean: float, scale: float) -> None:
        self._process = process
        self._mean = mean
        self.scale = scale
        """The deviation of the quantity."""

    @property
    def evidence(self) -> float:
        """The logarithm of how likely it makes what it was conditioned on."""
        return self._process.evidence() - self._process.rows * float(np.log(self.scale))

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Means and deviations at points."""
        means, deviations = self._process.predict(features)
        return self._mean + self.scale * means, self.scale * deviations

    def mean(self, features: Features) -> Floats:
        """Means alone."""
        return self._mean + self.scale * self._process.mean(features)

    def expect(self, features: Features) -> None:
        """Count further points as if they had ended as predicted: nothing is left to learn there."""
        self._process.expect(features)


@dataclass(frozen=True, slots=True)
class _Fitted:
    known: int
    mean: float
    scale: float
    hyperparameters: Floats


class Models:
    """Makes the models of one study; remembers the hyperparameters of the last count."""

    def __init__(self) -> None:
        self._count = -1
        self._fitted: dict[str, _Fitted] = {}

    def model(
        self,
        name: str,
        features: Features,
        values: Floats,
        numbers: NDArray[np.intp],
        count: int,
        rows: Booleans,
        deviations: Floats | None = None,
    ) -> Model:
        """The model of what has the values (NaN: unknown) at the points of all asks; conditioned on `rows` of them.

        `deviations`: of each value's noise if it is known, else NaN; of the others it is fitted.
        """
        fitted = self._hyperparameters(name, features, values, numbers, count, deviations)
        used = rows & ~np.isnan(values)
        process = GaussianProcess(
            features.of(used),
            (values[used] - fitted.mean) / fitted.scale,
            fitted.hyperparameters,
            None if deviations is None else deviations[used] / fitted.scale,
        )
        return Model(process, fitted.mean, fitted.scale)

    def _hyperparameters(
        self,
        name: str,
        features: Features,
        values: Floats,
        numbers: NDArray[np.intp],
        count: int,
        deviations: Floats | None,
    ) -> _Fitted:
        if count != self._count:
            self._count = count
            self._fitted.clear()
        known = ~np.isnan(values)
        early = np.flatnonzero(known & (numbers < count))
        if len(early) < _FEWEST_FITTED:
            mean, scale = _standard(values[known])
            return _Fitted(len(early), mean, scale, starting_hyperparameters(features.whole.shape[1]))
        fitted = self._fitted.get(name)
        # One that took very long may have ended since.
        if fitted is None or fitted.known != len(early):
            some = early[np.unique(np.linspace(0, len(early) - 1, min(len(early), _MOST_FITTED)).astype(np.intp))]
            mean, scale = _standard(values[some])
            noise = None if deviations is None else deviations[some] / scale
            hyperparameters = fit_hyperparameters(features.of(some), (values[some] - mean) / scale, noise)
            fitted = self._fitted[name] = _Fitted(len(early), mean, scale, hyperparameters)
        return fitted


def _standard(values: Floats) -> tuple[float, float]:
    scale = float(values.std())
    return float(values.mean()), scale if scale > 1e-12 else 1.0
