"""A quantity of a device by its logarithm: a Gaussian process, with intervals that its own errors widen.

The process is that of the surrogate sampler. Each measured value is predicted by a process that was fitted without it
and its fold, hyperparameters too: those that are fitted to a value predict it better than another. An interval at a
level is as wide as the process says, times the quantile of these errors over their predicted deviations, if that is
more than a normal one (cross-conformal: Vovk 2015, "Cross-conformal predictors"; with the correction for few values of
Lei et al. 2018, "Distribution-free predictive inference for regression").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from service.scheduling.surrogate.features import Features
from service.scheduling.surrogate.gaussian_process import GaussianProcess, fit_hyperparameters

Floats = NDArray[np.float64]

INTERVAL = 0.90
"""The level of the intervals that are shown."""

FOLDS = 8
"""Parts that the values are predicted in, each from the others."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of some points: medians, and the deviations of their logarithms."""

    medians: Floats
    deviations: Floats

    def below(self, factor: float) -> Floats:
        """The values that lie so many deviations below the medians."""
        return self.medians * np.exp(-factor * self.deviations)

    def above(self, factor: float) -> Floats:
        """The values that lie so many deviations above the medians."""
        return self.medians * np.exp(factor * self.deviations)


@dataclass(frozen=True, slots=True)
class ModelErrors:
    """How well a model predicts what was measured, each value from all others."""

    rows: int
    error_share: float
    """Mean absolute error over the value."""
    covered_share: float
    """Of the values: within their interval at the level `INTERVAL`."""
    false_rejections: int
    """Of the values that keep a limit at their median: would be rejected."""
    rejections: int
    """Of the values that break it: would be rejected."""


class CalibratedModel:
    """The model of one quantity. Values are above 0."""

    def __init__(self, columns: Floats, values: Floats) -> None:
        """`columns`: a row a value, scaled to 0 to 1."""
        self._values = values
        self._fitted = _Fitted(columns, values)
        self._left_out = _cross_predicted(columns, values)
        self._errors = np.abs(np.log(self._left_out.medians / values)) / self._left_out.deviations

    def predict(self, columns: Floats) -> Prediction:
        """Of points: what another measurement would say, so that the noise of one is in the deviations."""
        return self._fitted.predict(columns)

    def two_sided(self, level: float = INTERVAL) -> float:
        """How many deviations an interval reaches to each side."""
        return max(float(ndtri(0.5 + level / 2)), self._quantile(level))

    def one_sided(self, level: float) -> float:
        """How many deviations above the median a value lies at most, at this level.

        Few values say little of a rare error: with fewer than the level needs, the largest one counts, and Student's t.
        """
        spread = max(1.0, math.sqrt(float(np.mean(self._errors**2))))
        return max(float(stdtrit(max(len(self._errors) - 1, 1), level)) * spread, self._quantile(level))

    def errors(self, level: float) -> ModelErrors:
        """`level` of rejections."""
        values, left_out = self._values, self._left_out
        reach, limit = self.two_sided(), float(np.median(values))
        rejected = left_out.below(self.one_sided(level)) > limit
        # The reach may be one of these errors: rounding is not to decide about it.
        covered = self._errors <= reach * (1 + 1e-9)
        return ModelErrors(
            rows=len(values),
            error_share=float(np.mean(np.abs(left_out.medians / values - 1))),
            covered_share=float(np.mean(covered)),
            false_rejections=int((rejected & (values <= limit)).sum()),
            rejections=int((rejected & (values > limit)).sum()),
        )

    def _quantile(self, level: float) -> float:
        ordered = np.sort(self._errors)
        place = math.ceil((len(ordered) + 1) * level) - 1
        return float(ordered[min(place, len(ordered) - 1)])


class _Fitted:
    """A process of the logarithms of values."""

    def __init__(self, columns: Floats, values: Floats) -> None:
        logarithms = np.log(values)
        self._mean = float(logarithms.mean())
        scale = float(logarithms.std())
        self._scale = scale if scale > 1e-9 else 1.0
        features, standard = _features(columns), (logarithms - self._mean) / self._scale
        hyperparameters = fit_hyperparameters(features, standard)
        self._noise = float(np.exp(hyperparameters[-1]))
        self._process = GaussianProcess(features, standard, hyperparameters)

    def predict(self, columns: Floats) -> Prediction:
        means, deviations = self._process.predict(_features(columns))
        noisy = self._scale * np.sqrt(deviations**2 + self._noise**2)
        return Prediction(np.exp(self._mean + self._scale * means), np.maximum(noisy, 1e-9))


def _cross_predicted(columns: Floats, values: Floats) -> Prediction:
    """Each value from those of the other folds. Neighbours, which may be alike, are in different folds."""
    medians, deviations = np.empty_like(values), np.empty_like(values)
    for fold in range(min(FOLDS, len(values))):
        out = np.arange(len(values)) % FOLDS == fold
        found = _Fitted(columns[~out], values[~out]).predict(columns[out])
        medians[out], deviations[out] = found.medians, found.deviations
    return Prediction(medians, deviations)


def _features(columns: Floats) -> Features:
    return Features(columns, np.empty((len(columns), 0)))
