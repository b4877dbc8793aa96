"""How certain the figures of a latency are: 95 % confidence intervals, relative to the figure.

A percentile's is by order statistics, so without a distribution in mind: of `count` samples the interval of the share q
lies between the ranks count·q ± 1.96·√(count·q·(1−q)). That of the mean is by the central limit theorem. Both take runs
for independent of each other, which neighbours are not quite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Z95 = 1.96

MEAN = "latency_ms_mean"
SHARES: Mapping[str, float] = {"latency_ms_p50": 0.5, "latency_ms_p90": 0.9, "latency_ms_p99": 0.99}
"""Figure -> the share of the samples below it."""

KNOWN_WITHIN: Mapping[str, float] = {
    "latency_ms_p50": 0.005,
    "latency_ms_p90": 0.01,
    "latency_ms_p99": 0.02,
    MEAN: 0.005,
}
"""Figure -> half of the interval, relative to it, at which it is known well enough. Tails are known less well."""


def half_width(samples_ms: np.ndarray, figure: str) -> float | None:
    """Half of the interval of a figure, relative to it; None where there are too few samples to say."""
    count = len(samples_ms)
    if figure == MEAN:
        mean = float(samples_ms.mean()) if count else 0.0
        return Z95 * float(samples_ms.std(ddof=1)) / math.sqrt(count) / mean if count > 1 and mean > 0 else None
    share = SHARES[figure]
    reach = Z95 * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - reach) - 1, math.ceil(count * share + reach)
    if low < 0 or high >= count:
        return None
    middle = int(count * share)
    ordered = np.partition(samples_ms, [low, middle, high])
    value = float(ordered[middle])
    return float(ordered[high] - ordered[low]) / 2 / value if value > 0 else None


def are_known(samples_ms: Sequence[float], figures: Iterable[str]) -> bool:
    """Whether each of the figures is known well enough."""
    samples = np.asarray(samples_ms)
    widths = {figure: half_width(samples, figure) for figure in figures}
    return all(width is not None and width <= KNOWN_WITHIN[figure] for figure, width in widths.items())
