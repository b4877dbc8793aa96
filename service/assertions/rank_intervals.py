"""Intervals of a median by ranks, exact for few builds and without a normal distribution.

Latencies of fresh builds have outliers: a neighbour that was busy, memory that lay badly. A mean and its t interval
follow them; the median of all pairs (Hodges & Lehmann 1963) and the bounds by ranks do not. Of one sample the pairs are
the Walsh averages, and the bounds come from Wilcoxon's signed-rank distribution; of two samples each value of one is
paired with each of the other, and the bounds come from the rank-sum distribution (Hollander & Wolfe 1999, Nonparametric
Statistical Methods, sections 3.3 and 4.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Risks = tuple[float, float]
"""How likely the lower bound and the upper bound are to be wrong, at most."""

LARGEST = 1e300
"""Pairs beyond it count as this: sums of them are still numbers, which JSON has."""

MOST_BUILDS = 64
"""Of one sample: the distribution of two takes the product of their sizes squared to calculate."""


@dataclass(frozen=True, slots=True)
class RankInterval:
    """An estimate and its bounds; a bound is None if there are too few builds to have one."""

    estimate: float
    low: float | None
    high: float | None

    @classmethod
    def of_pairs(cls, pairs: Floats, shares: Floats, risks: Risks) -> RankInterval:
        """Of the values of all pairs. `shares`: the distribution of how many of them lie on one side."""
        ordered = np.sort(np.clip(pairs, -LARGEST, LARGEST), axis=None)
        below, above = (_left_out(shares, risk) for risk in risks)
        low = float(ordered[below]) if below >= 0 else None
        return cls(float(np.median(ordered)), low, float(ordered[-1 - above]) if above >= 0 else None)


def walsh_averages(values: Floats) -> Floats:
    """The mean of each pair of one sample of N values, each value with itself included: N (N + 1) / 2."""
    first, second = np.triu_indices(len(values))
    return values[first] / 2 + values[second] / 2


def one_sample(values: Floats, risks: Risks) -> RankInterval:
    """Of the centre of one sample."""
    return RankInterval.of_pairs(walsh_averages(values), signed_rank_counts(len(values)), risks)


def two_samples(pairs: Floats, risks: Risks) -> RankInterval:
    """Of what `pairs` (M, N) says of each of M builds with each of N others."""
    return RankInterval.of_pairs(pairs, rank_sum_counts(*pairs.shape), risks)


@lru_cache(maxsize=256)
def signed_rank_counts(count: int) -> Floats:
    """How many of the 2^N signs of N ranks give each sum of the positive ones, in shares: the product of (1 + x^i)."""
    shares = np.ones(1)
    for rank in range(1, count + 1):
        shares = _added(shares, np.pad(shares, (rank, 0))) / 2
    return shares


@lru_cache(maxsize=256)
def rank_sum_counts(first: int, second: int) -> Floats:
    """How often each number of pairs is in one order, of M and N values of one distribution, in shares.

    By the last in order: with the chance M / (M + N) it is of the first sample, and above all N of the second.
    """
    row = [np.ones(1) for _ in range(second + 1)]
    for m in range(1, first + 1):
        row[0] = np.ones(1)
        for n in range(1, second + 1):
            row[n] = _added(np.pad(row[n], (n, 0)) * m, row[n - 1] * n) / (m + n)
    return row[second]


def _left_out(shares: Floats, risk: float) -> int:
    """How many of the ordered pairs a bound leaves out; -1 if even the outermost is wrong more often than `risk`."""
    return int(np.searchsorted(np.cumsum(shares), risk * (1 + 1e-12), side="right")) - 1


def _added(first: Floats, second: Floats) -> Floats:
    length = max(len(first), len(second))
    return np.pad(first, (0, length - len(first))) + np.pad(second, (0, length - len(second)))
