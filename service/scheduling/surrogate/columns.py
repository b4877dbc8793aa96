"""One parameter as numbers: codes, by which points are drawn and compared, and positions, which models see."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

Value = bool | int | float | str
"""What Optuna has at a parameter."""


class Column:
    """The values of one parameter.

    A code is the index of a value, or if there is a continuum the position itself. A position lies in 0 to 1, evenly
    on the parameter's own scale. Categories have codes, and no meaningful position.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self.is_category = isinstance(distribution, CategoricalDistribution)
        self.is_log = False
        self.size: int | None
        if isinstance(distribution, CategoricalDistribution):
            self._low, self._high, self._step = 0.0, float(len(distribution.choices) - 1), 1.0
        elif isinstance(distribution, IntDistribution | FloatDistribution):
            self._low, self._high = float(distribution.low), float(distribution.high)
            self._step = None if distribution.step is None else float(distribution.step)
            self.is_log = distribution.log
        else:
            raise TypeError(f"{type(distribution).__name__} is not a supported distribution")
        self.size = None if self._step is None else round((self._high - self._low) / self._step) + 1
        if self._low == self._high:
            self.size = 1

    def code(self, value: Value) -> float:
        """The code of a value as Optuna has it."""
        number = float(self.distribution.to_internal_repr(value))
        if self.size is None:
            return float(self._position(np.array(number)))
        return 0.0 if self._step is None else float(round((number - self._low) / self._step))

    def place(self, number: float) -> float | None:
        """The code of a number of the distribution's own that may lie between its values or beyond its bounds.

        So far beyond them as the range is wide, or for a logarithm their ratio, numbers count as they are. None: it is
        none of the categories.
        """
        if self.is_category:
            return number if number in range(self.size or 0) else None
        if self._low == self._high:
            return 0.0
        low, high = 2 * self._low - self._high, 2 * self._high - self._low
        if self.is_log:
            low, high = self._low**2 / self._high, self._high**2 / self._low
        number = min(max(number, low), high)
        if self._step is None:
            return float(self._position(np.array(number)))
        return (number - self._low) / self._step

    def nearest(self, codes: Floats) -> Floats:
        """The codes of the values that are nearest to codes anywhere."""
        if self.size is None:
            return np.clip(codes, 0.0, 1.0)
        return np.clip(np.rint(codes), 0.0, self.size - 1.0)

    def value(self, code: float) -> Value:
        """The inverse of `code`."""
        if self.size is not None:
            number = self._low + code * (self._step or 0.0)
        elif self.is_log:
            number = math.exp(math.log(self._low) + code * (math.log(self._high) - math.log(self._low)))
        else:
            number = self._low + code * (self._high - self._low)
        return self.distribution.to_external_repr(min(max(number, self._low), self._high))

    def positions(self, codes: Floats) -> Floats:
        """Where codes lie on the parameter's own scale."""
        if self.size is None:
            return codes
        if self.size == 1:
            return np.full(codes.shape, 0.5)
        return self._position(self._low + codes * (self._step or 0.0))

    def codes(self, positions: Floats) -> Floats:
        """The codes nearest to positions."""
        if self.size is None:
            return positions
        if not self.is_log:
            return np.rint(positions * (self.size - 1))
        low, high = math.log(self._low), math.log(self._high)
        return np.clip(
            np.rint((np.exp(low + positions * (high - low)) - self._low) / (self._step or 1.0)), 0, self.size - 1
        )

    def draw(self, generator: np.random.Generator, shape: int | tuple[int, ...]) -> Floats:
        """Codes at random, evenly on the parameter's own scale."""
        shares = generator.random(shape)
        if self.size is None:
            return shares
        return self.codes(shares) if self.is_log else np.floor(shares * self.size)

    def neighbours(self, codes: Floats, generator: np.random.Generator) -> Floats:
        """Values near those of the codes; of categories any."""
        if self.is_category:
            return self.draw(generator, codes.shape)
        steps = generator.standard_normal(codes.shape) * 0.1
        if self.size is None:
            return np.clip(codes + steps, 0.0, 1.0)
        moved = self.codes(np.clip(self.positions(codes) + steps, 0.0, 1.0))
        aside = np.where(steps > 0, 1.0, -1.0)
        return np.clip(np.where(moved == codes, codes + aside, moved), 0, self.size - 1)

    def _position(self, numbers: Floats) -> Floats:
        if self.is_log:
            return (np.log(numbers) - math.log(self._low)) / (math.log(self._high) - math.log(self._low))
        return (numbers - self._low) / (self._high - self._low)
