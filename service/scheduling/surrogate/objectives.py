"""One objective as it is modelled, as a cost or by its logarithm, and what is expected below a bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from service.scheduling.surrogate.columns import Floats

_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True, slots=True)
class Objective:
    """`is_maximized` turns its sign to make a cost; `is_log` says that its logarithm is modelled."""

    is_maximized: bool
    is_log: bool

    def modelled(self, costs: Floats) -> Floats:
        """What is modelled of costs."""
        if not self.is_log:
            return costs
        return np.log(-costs if self.is_maximized else costs)

    def deviations(self, costs: Floats, deviations: Floats) -> Floats:
        """Those of what is modelled, of costs with small deviations."""
        return deviations / np.abs(costs) if self.is_log else deviations

    def cost(self, modelled: Floats) -> Floats:
        """The inverse of `modelled`."""
        if not self.is_log:
            return modelled
        values = np.exp(np.clip(modelled, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
        return -values if self.is_maximized else values

    def gain(self, bounds: Floats, mean: Floats, deviation: Floats) -> Floats:
        """By how much a cost lies below bounds, on average: max(bound - cost, 0), for what is modelled as normal."""
        if not self.is_log:
            aside = (bounds - mean) / deviation
            return (bounds - mean) * ndtr(aside) + deviation * np.exp(-0.5 * aside**2) / np.sqrt(2 * np.pi)
        average = np.exp(np.minimum(mean + 0.5 * deviation**2, _LARGEST_EXPONENT))
        strikes = np.maximum(-bounds if self.is_maximized else bounds, 1e-300)
        aside = (np.log(strikes) - mean) / deviation
        below = strikes * ndtr(aside) - average * ndtr(aside - deviation)
        if not self.is_maximized:
            return np.maximum(np.where(bounds > 0, below, 0.0), 0.0)
        # (value - strike) above zero: by parity from the part below.
        return np.maximum(np.where(bounds < 0, average - strikes + below, average + bounds), 0.0)

    def chance(self, bounds: Floats, mean: Floats, deviation: Floats) -> Floats:
        """How probable it is that a cost is at most the bounds."""
        if not self.is_log:
            return ndtr((bounds - mean) / deviation)
        aside = (np.log(np.maximum(-bounds if self.is_maximized else bounds, 1e-300)) - mean) / deviation
        if self.is_maximized:
            return np.where(bounds < 0, ndtr(-aside), 1.0)
        return np.where(bounds > 0, ndtr(aside), 0.0)
