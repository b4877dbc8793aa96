"""Percentiles of steps of several kinds, each of which is done so many times in a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 90, 99)


def weighted_percentiles(samples: Sequence[Sequence[float]], counts: Sequence[int]) -> dict[int, float]:
    """The PERCENTILES of a text whose steps are like `samples`, `counts` of each kind, however many samples there are.

    The smallest sample up to which so large a share of the steps lies; between two samples linear, as NumPy's.
    """
    values = np.concatenate([np.asarray(each, np.float64) for each in samples])
    weights = np.concatenate(
        [np.full(len(each), count / len(each)) for each, count in zip(samples, counts, strict=True)]
    )
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    # The middle of each sample's share; the ends are the smallest and the largest sample, as of a plain percentile.
    middles = np.cumsum(weights) - weights / 2
    span = middles[-1] - middles[0]
    shares = (middles - middles[0]) / span if span > 0 else middles
    return {each: float(np.interp(each / 100, shares, values)) for each in PERCENTILES}
