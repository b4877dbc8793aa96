"""A Gaussian process over points: smooth with a scale for each column, a quadratic, and weakly each layer.

The quadratic carries what few points say (costs are nearly one in their sizes), the smooth part what it misses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from service.scheduling.surrogate.columns import Floats
from service.scheduling.surrogate.features import Features, squared_distances

_JITTERS = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
"""What is added to a diagonal: as little as rounding allows, where points are nearly the same."""
_STEPS = 40
_BOUND = 6.0
"""Hyperparameters are logarithms that stay within so much of their start."""

# Logarithms of: amplitude of the smooth part, of the linear one, of the quadratic one, of the layers, and the noise.
_AMPLITUDES = np.log([0.7, 0.7, 0.3, 0.2, 0.05])
_PRIOR_WIDTH = 1.0


def starting_hyperparameters(columns: int) -> Floats:
    """From where hyperparameters are always fitted: also the mode of their prior."""
    scale = 0.5 * np.log(max(columns, 2) / 2.0)
    return np.concatenate([np.full(columns, scale), _AMPLITUDES])


def fit_hyperparameters(features: Features, values: Floats) -> Floats:
    """The most likely hyperparameters for values of mean 0 and deviation 1, by gradient from a fixed start."""
    start = starting_hyperparameters(features.whole.shape[1])
    evidence = _Evidence(features, values, start)
    found = minimize(
        evidence.negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(value - _BOUND, value + _BOUND) for value in start],
        options={"maxiter": _STEPS},
    )
    return np.asarray(found.x, dtype=np.float64)


class GaussianProcess:
    """The posterior of a function that was seen at some points."""

    def __init__(self, features: Features, values: Floats, hyperparameters: Floats) -> None:
        """`values` are of mean 0 and deviation 1."""
        self._features = features
        self._hyperparameters = hyperparameters
        self._root = _root(self._of_noise(features))
        self._weights = cho_solve((self._root, True), values)
        self._values = values
        self._expected: _Expected | None = None

    def expect(self, features: Features) -> None:
        """Take the function to be seen at further points too, with the values that are predicted there.

        Predicted means stay as they are: deviations shrink.
        """
        across = solve_triangular(self._root, self._covariance(self._features, features), lower=True)
        self._expected = _Expected(features, across, _root(self._of_noise(features) - across.T @ across))

    @property
    def rows(self) -> int:
        """How many values were seen."""
        return len(self._values)

    def evidence(self) -> float:
        """The logarithm of how likely the values are, but for a constant that depends on their number."""
        return -0.5 * float(self._values @ self._weights) - float(np.log(np.diag(self._root)).sum())

    def mean(self, features: Features) -> Floats:
        """What of `predict` is quick."""
        return self._covariance(self._features, features).T @ self._weights

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Mean and deviation of the function at other points."""
        cross = self._covariance(self._features, features)
        explained = solve_triangular(self._root, cross, lower=True)
        variance = _variances(features, self._hyperparameters) - (explained**2).sum(axis=0)
        if self._expected is not None:
            left = self._covariance(self._expected.features, features) - self._expected.across.T @ explained
            variance -= (solve_triangular(self._expected.root, left, lower=True) ** 2).sum(axis=0)
        return cross.T @ self._weights, np.sqrt(np.maximum(variance, 1e-10))

    def _covariance(self, left: Features, right: Features) -> Floats:
        return _covariance(left, right, self._hyperparameters)

    def _of_noise(self, features: Features) -> Floats:
        """The covariance of what is seen at points."""
        covariance = self._covariance(features, features)
        covariance[np.diag_indices_from(covariance)] += np.exp(2 * self._hyperparameters[-1])
        return covariance


@dataclass(frozen=True, slots=True)
class _Expected:
    """Points whose values are expected: their part of the root of the covariance below that of the points seen."""

    features: Features
    across: Floats
    root: Floats


class _Evidence:
    """The logarithm of the marginal likelihood, with its gradient."""

    def __init__(self, features: Features, values: Floats, prior: Floats) -> None:
        self._values = values
        self._prior = prior
        whole = features.whole
        self._apart = (whole[:, None, :] - whole[None, :, :]) ** 2
        self._linear = _products(whole, whole)
        self._layers = _likeness(features.layers, features.layers)

    def negative(self, hyperparameters: Floats) -> tuple[float, Floats]:
        """What is minimised: with the prior, and its sign turned."""
        columns = len(hyperparameters) - len(_AMPLITUDES)
        scales = np.exp(-2 * hyperparameters[:columns])
        smooth_, linear_, quadratic_, layers_, noise_ = np.exp(2 * hyperparameters[columns:])
        smooth = smooth_ * np.exp(-0.5 * (self._apart @ scales))
        linear, quadratic = linear_ * self._linear, quadratic_ * self._linear**2
        layers = layers_ * self._layers
        count = len(self._values)
        covariance = smooth + linear + quadratic + layers
        covariance[np.diag_indices(count)] += noise_
        root = _root(covariance)
        inverse = cho_solve((root, True), np.eye(count))
        weights = inverse @ self._values
        aside = (hyperparameters - self._prior) / _PRIOR_WIDTH
        evidence = -0.5 * self._values @ weights - np.log(np.diag(root)).sum() - 0.5 * (aside**2).sum()
        slope = np.outer(weights, weights) - inverse
        gradient = np.empty_like(hyperparameters)
        gradient[:columns] = 0.5 * np.tensordot(slope * smooth, self._apart, axes=2) * scales
        for index, part in enumerate((smooth, linear, quadratic, layers)):
            gradient[columns + index] = (slope * part).sum()
        gradient[-1] = np.trace(slope) * noise_
        gradient -= aside / _PRIOR_WIDTH
        return -float(evidence), -gradient


def _root(covariance: Floats) -> Floats:
    """The lower Cholesky factor."""
    diagonal = np.diag_indices_from(covariance)
    for jitter in _JITTERS:
        raised = covariance.copy()
        raised[diagonal] += jitter * max(1.0, float(covariance[diagonal].max()))
        try:
            return cholesky(raised, lower=True)
        except LinAlgError:
            continue
    raise LinAlgError("a covariance has no Cholesky factor")


def _covariance(left: Features, right: Features, hyperparameters: Floats) -> Floats:
    columns = left.whole.shape[1]
    scales = np.exp(-hyperparameters[:columns])
    smooth, linear, quadratic, layers, _ = np.exp(2 * hyperparameters[columns:])
    products = _products(left.whole, right.whole)
    likeness = smooth * np.exp(-0.5 * squared_distances(left.whole * scales, right.whole * scales))
    return likeness + linear * products + quadratic * products**2 + layers * _likeness(left.layers, right.layers)


def _variances(features: Features, hyperparameters: Floats) -> Floats:
    """The diagonal of the covariance."""
    smooth, linear, quadratic, layers, _ = np.exp(2 * hyperparameters[features.whole.shape[1] :])
    products = 1.0 + ((features.whole - 0.5) ** 2).sum(axis=1)
    each = layers if features.layers.shape[1] else 0.0
    return smooth + each + linear * products + quadratic * products**2


def _products(left: Floats, right: Floats) -> Floats:
    """Of columns around their middle, with one more for the constant."""
    return 1.0 + (left - 0.5) @ (right - 0.5).T


def _likeness(left: Floats, right: Floats) -> Floats:
    """1 where all layers are the same, less where they differ."""
    if not left.shape[1]:
        return np.zeros((len(left), len(right)))
    return np.exp(-2.0 * squared_distances(left, right) / left.shape[1])
