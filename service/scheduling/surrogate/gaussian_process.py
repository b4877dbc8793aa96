"""A Gaussian process over points: smooth with a scale for each column, a quadratic, and weakly each layer.

The quadratic carries what few points say (costs are nearly one in their sizes), the smooth part what it misses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, get_lapack_funcs, solve_triangular
from scipy.optimize import minimize

from service.scheduling.surrogate.columns import Floats
from service.scheduling.surrogate.features import Features, squared_distances

_JITTERS = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
"""What is added to a diagonal: as little as rounding allows, if points are nearly the same."""
_MOST_STEPS, _MOST_EVALUATIONS, _PRECISION = 25, 30, 1e-5
"""Of a fit; the last is the part of the evidence that a step gains at least. More makes suggestions no better."""
_BLOCK = 128
"""Points whose covariances are computed together: so many that they stay in a core's cache."""
_BOUND = 6.0
"""Hyperparameters are logarithms that stay within so much of their start."""

# Logarithms of: amplitude of the smooth part, of the linear one, of the quadratic one, of the layers, and the noise.
_AMPLITUDES = np.log([0.7, 0.7, 0.3, 0.2, 0.05])
_PRIOR_WIDTH = 1.0

(_invert,) = get_lapack_funcs(["potri"])
"""The inverse of a matrix by its Cholesky factor, in the third of the time that solving for the identity takes."""


def starting_hyperparameters(columns: int) -> Floats:
    """From where hyperparameters are always fitted: also the mode of their prior."""
    scale = 0.5 * np.log(max(columns, 2) / 2.0)
    return np.concatenate([np.full(columns, scale), _AMPLITUDES])


def fit_hyperparameters(features: Features, values: Floats, deviations: Floats | None = None) -> Floats:
    """The most likely hyperparameters for values of mean 0 and deviation 1, by gradient from a fixed start.

    `deviations`: of the noise of each value if it is known, else NaN; of the others it is the last hyperparameter.
    """
    start = starting_hyperparameters(features.whole.shape[1])
    evidence = _Evidence(features, values, start, deviations)
    found = minimize(
        evidence.negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(value - _BOUND, value + _BOUND) for value in start],
        options={"maxiter": _MOST_STEPS, "maxfun": _MOST_EVALUATIONS, "ftol": _PRECISION},
    )
    return np.asarray(found.x, dtype=np.float64)


class GaussianProcess:
    """The posterior of a function that was seen at some points."""

    def __init__(
        self, features: Features, values: Floats, hyperparameters: Floats, deviations: Floats | None = None
    ) -> None:
        """`values` are of mean 0 and deviation 1; `deviations` as of `fit_hyperparameters`."""
        self._hyperparameters = hyperparameters
        self._kernel = _Kernel(features, hyperparameters)
        self._root = _root(self._of_noise(self._kernel, deviations))
        self._weights = cho_solve((self._root, True), values, check_finite=False)
        self._values = values
        self._expected: _Expected | None = None

    def expect(self, features: Features) -> None:
        """Take the function to be seen at further points too, with the values that are predicted there.

        Predicted means stay as they are: deviations shrink.
        """
        kernel = _Kernel(features, self._hyperparameters)
        across = _solved(self._root, self._kernel.covariance(features).T)
        self._expected = _Expected(kernel, across, _root(self._of_noise(kernel) - across.T @ across))

    @property
    def rows(self) -> int:
        """How many values were seen."""
        return len(self._values)

    def evidence(self) -> float:
        """The logarithm of how likely the values are, but for a constant that depends on their number."""
        return -0.5 * float(self._values @ self._weights) - float(np.log(np.diag(self._root)).sum())

    def mean(self, features: Features) -> Floats:
        """What of `predict` is quick."""
        return self._kernel.covariance(features) @ self._weights

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Mean and deviation of the function at other points."""
        blocks = [self._predict_block(features.of(rows)) for rows in _blocks(len(features))]
        return np.concatenate([mean for mean, _ in blocks]), np.concatenate([deviation for _, deviation in blocks])

    def _predict_block(self, features: Features) -> tuple[Floats, Floats]:
        # By columns in memory, as LAPACK takes it.
        cross = self._kernel.covariance(features).T
        explained = _solved(self._root, cross)
        variance = _variances(features, self._hyperparameters) - _squares(explained)
        if self._expected is not None:
            left = self._expected.kernel.covariance(features).T - self._expected.across.T @ explained
            variance -= _squares(_solved(self._expected.root, left))
        return cross.T @ self._weights, np.sqrt(np.maximum(variance, 1e-10))

    def _of_noise(self, kernel: _Kernel, deviations: Floats | None = None) -> Floats:
        """The covariance of what is seen at a kernel's points."""
        covariance = kernel.covariance(kernel.features)
        noise = np.exp(2 * self._hyperparameters[-1])
        covariance[np.diag_indices_from(covariance)] += _known_or(noise, deviations)
        return covariance


class _Kernel:
    """The covariance of the function at any points with that at some, of which what is needed is computed once."""

    def __init__(self, features: Features, hyperparameters: Floats) -> None:
        columns = features.whole.shape[1]
        self.features = features
        self._scales = np.sqrt(0.5) * np.exp(-hyperparameters[:columns])
        self._log_smooth = 2 * hyperparameters[columns]
        _, self._linear, self._quadratic, self._layers, _ = np.exp(2 * hyperparameters[columns:])
        scaled, middled = features.whole * self._scales, features.whole - 0.5
        one = np.ones((len(features), 1))
        self._near = np.concatenate([scaled, one, -_squares(scaled.T)[:, None]], axis=1).T
        self._products = np.concatenate([middled, one], axis=1).T

    def covariance(self, features: Features) -> Floats:
        """A row for each of the points given, a column for each of the kernel's."""
        found = np.empty((len(features), len(self.features)))
        for rows in _blocks(len(features)):
            self._add_block(features.of(rows), found[rows])
        return found

    def _add_block(self, features: Features, found: Floats) -> None:
        scaled, middled = features.whole * self._scales, features.whole - 0.5
        one = np.ones((len(features), 1))
        # The exponent of the smooth part in one product: of the distance, and of the amplitude.
        raised = self._log_smooth - _squares(scaled.T)[:, None]
        np.matmul(np.concatenate([2 * scaled, raised, one], axis=1), self._near, out=found)
        np.minimum(found, self._log_smooth, out=found)
        np.exp(found, out=found)
        # Linear and quadratic part: the product, times what grows with it.
        middled = np.concatenate([middled, one], axis=1)
        growing = self._quadratic * middled
        growing[:, -1] += self._linear
        found += (growing @ self._products) * (middled @ self._products)
        if features.layers.shape[1]:
            found += self._layers * _likeness(features.layers, self.features.layers)


@dataclass(frozen=True, slots=True)
class _Expected:
    """Points whose values are expected: their part of the root of the covariance below that of the points seen."""

    kernel: _Kernel
    across: Floats
    root: Floats


class _Evidence:
    """The logarithm of the marginal likelihood, with its gradient.

    What is the same for two points either way is computed once: arrays are of the pairs, each point with itself too.
    """

    def __init__(self, features: Features, values: Floats, prior: Floats, deviations: Floats | None) -> None:
        self._values = values
        self._deviations = deviations
        self._is_fitted_noise = np.ones(len(values), dtype=np.bool_) if deviations is None else np.isnan(deviations)
        """Whose noise is the hyperparameter."""
        self._prior = prior
        count = len(values)
        left, right = np.triu_indices(count)
        self._pairs = left, right
        self._places = left * count + right
        self._is_diagonal = left == right
        whole, layers = features.whole, features.layers
        self._apart = np.ascontiguousarray(((whole[left] - whole[right]) ** 2).T)
        self._linear = _products(whole, whole)[left, right]
        self._quadratic = self._linear**2
        self._layers = _likeness(layers, layers)[left, right]

    def negative(self, hyperparameters: Floats) -> tuple[float, Floats]:
        """What is minimised: with the prior, and its sign turned."""
        columns = len(hyperparameters) - len(_AMPLITUDES)
        scales = np.exp(-2 * hyperparameters[:columns])
        smooth_, linear_, quadratic_, layers_, noise_ = np.exp(2 * hyperparameters[columns:])
        smooth = smooth_ * np.exp(-0.5 * (scales @ self._apart))
        parts = smooth, linear_ * self._linear, quadratic_ * self._quadratic, layers_ * self._layers
        covariance = parts[0] + parts[1] + parts[2] + parts[3]
        covariance[self._is_diagonal] += _known_or(noise_, self._deviations)
        root, inverse = self._decompose(covariance)
        weights = cho_solve((root, True), self._values, check_finite=False)
        aside = (hyperparameters - self._prior) / _PRIOR_WIDTH
        evidence = -0.5 * self._values @ weights - np.log(np.diag(root)).sum() - 0.5 * (aside**2).sum()
        left, right = self._pairs
        slope = weights[left] * weights[right] - inverse
        gradient = np.empty_like(hyperparameters)
        gradient[-1] = slope[self._is_diagonal][self._is_fitted_noise].sum() * noise_
        # A pair of two points stands for both ways.
        slope[~self._is_diagonal] *= 2.0
        gradient[:columns] = 0.5 * (self._apart @ (slope * smooth)) * scales
        gradient[columns:-1] = [slope @ part for part in parts]
        gradient -= aside / _PRIOR_WIDTH
        return -float(evidence), -gradient

    def _decompose(self, covariance: Floats) -> tuple[Floats, Floats]:
        """The Cholesky factor of the matrix that pairs make, and the pairs of its inverse."""
        count = len(self._values)
        upper = np.zeros(count * count)
        upper[self._places] = covariance
        # Its transpose is the lower half, as LAPACK has its matrices.
        root = _root(upper.reshape(count, count).T)
        inverse, failed = _invert(root, lower=True)
        if failed:
            raise LinAlgError("a covariance has no inverse")
        return root, inverse.T.reshape(-1)[self._places]


def _known_or(noise: float, deviations: Floats | None) -> float | Floats:
    """Variances of the noise of each value: as known, else the one of all others."""
    return noise if deviations is None else np.where(np.isnan(deviations), noise, deviations**2)


def _root(covariance: Floats) -> Floats:
    """The lower Cholesky factor."""
    diagonal = np.diag_indices_from(covariance)
    for jitter in _JITTERS:
        raised = covariance.copy(order="K")
        raised[diagonal] += jitter * max(1.0, float(covariance[diagonal].max()))
        if raised.flags.c_contiguous:
            # It is the same turned over, and LAPACK has its matrices by columns.
            raised = raised.T
        try:
            return cholesky(raised, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            continue
    raise LinAlgError("a covariance has no Cholesky factor")


def _solved(root: Floats, right: Floats) -> Floats:
    """What the lower root is to be multiplied with to give the columns on the right."""
    return solve_triangular(root, right, lower=True, check_finite=False)


def _blocks(count: int) -> list[slice]:
    """So many rows, a cache full after the other; one block if there are none."""
    return [slice(start, start + _BLOCK) for start in range(0, max(count, 1), _BLOCK)]


def _squares(columns: Floats) -> Floats:
    """The sum of squares of each column."""
    return np.einsum("ij,ij->j", columns, columns)


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
    """1 if all layers are the same, less if they differ."""
    if not left.shape[1]:
        return np.zeros((len(left), len(right)))
    return np.exp(-2.0 * squared_distances(left, right) / left.shape[1])
