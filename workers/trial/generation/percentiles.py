"""Figures of a text whose steps are of several kinds, each of which is done so many times, and their intervals.

The kinds are measured one after another, and a state of the machine may last longer than one of them. So their
intervals are not taken as independent: an end of the text's comes of the same end of every kind, weighted by steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from workers.engine.confidence import Interval

PERCENTILES = (50, 90, 99)


def weighted_percentiles(samples: Sequence[ArrayLike], counts: Sequence[int]) -> dict[int, float]:
    """The PERCENTILES of a text whose steps are like `samples`, `counts` of each kind, however many samples there are.

    The smallest sample up to which so large a share of the steps lies; between two samples linear, as NumPy's.
    """
    kinds = [np.asarray(each, np.float64) for each in samples]
    values = np.concatenate(kinds)
    weights = np.concatenate([np.full(len(each), count / len(each)) for each, count in zip(kinds, counts, strict=True)])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    # The middle of each sample's share; the ends are the smallest and the largest sample, as of a plain percentile.
    middles = np.cumsum(weights) - weights / 2
    span = middles[-1] - middles[0]
    shares = (middles - middles[0]) / span if span > 0 else middles
    return {each: float(np.interp(each / 100, shares, values)) for each in PERCENTILES}


def weighted_intervals(
    samples: Sequence[ArrayLike], counts: Sequence[int], kinds: Sequence[Mapping[int, Interval]]
) -> dict[int, Interval]:
    """Those of the `weighted_percentiles`. `kinds`: percentile -> its interval, of each kind.

    An end is where the percentile would be if the runs of every kind were slower (faster) by as much as its own
    percentile may be: so it lies between the least and the largest of their ends, but for the rounding of few runs.
    """
    found: dict[int, Interval] = {}
    for each, value in weighted_percentiles(samples, counts).items():
        own = [kind[each] for kind in kinds]
        low, high = (
            weighted_percentiles(
                [np.asarray(runs) * factor for runs, factor in zip(samples, factors, strict=True)], counts
            )[each]
            for factors in ([kind.low / kind.value for kind in own], [kind.high / kind.value for kind in own])
        )
        found[each] = Interval(value, min(low, value), max(high, value))
    return found


def summed(prompt: Interval, steps: Sequence[Interval], counts: Sequence[int]) -> Interval:
    """Of a prompt and its steps, `counts` of each kind, in ms."""
    value, low, high = (
        first + sum(count * each for count, each in zip(counts, others, strict=True))
        for first, others in (
            (prompt.value, [each.value for each in steps]),
            (prompt.low, [each.low for each in steps]),
            (prompt.high, [each.high for each in steps]),
        )
    )
    return Interval(value, low, high)
