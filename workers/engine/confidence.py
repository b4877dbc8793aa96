"""How certain the figures of a latency are: 95 % confidence intervals, within a process and over several.

Within a process, neighbouring runs are alike: the interval of a percentile is wider than that of as many independent
runs by what the share of runs below it varies over consecutive batches (batch means of the indicator; Heidelberger and
Lewis 1984). It lies between two ranks of the ordered samples, so that no distribution is assumed. That of the mean is
by the means of the batches.

Batches that differ by more than their runs explain (UNLIKE) say that the machine was in several states. The next
measurement may find it in any of them, so the interval then reaches as far as one batch may lie from the whole: a
longer measurement does not narrow it.

Over several processes a figure is the mean of the figures of each. How far processes differ is taken from them, and
from what is assumed beforehand, which counts as much as PRIOR_DEGREES further processes: two processes that happen to
agree do not say that a third one would.

Other programs only slow an engine, so the two sides of an interval may differ much: each side is combined by itself,
and what lets a figure be very much higher does not let it be as much lower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

Z95 = 1.96

BATCHES = 16
"""Consecutive batches of a measurement: each holds a sixteenth of it, however long noise lasts."""

UNLIKE: Mapping[int, tuple[float, float]] = {BATCHES: (1.67, 1.0), 4: (2.6, Z95)}
"""Number of batches -> how often as much as independent runs explain they vary at least to count as unlike, and how
many standard deviations of a batch the interval then reaches.

The first is the 95th percentile of chi-squared over its degrees of freedom (25.0 / 15, 7.81 / 3). Noise that is short
against a sixteenth averages out to a part in quarters; what differs between quarters differs between processes."""

MOST_OF_A_TAIL = 0.9
"""Of the share of runs on either side of a percentile: how far unlike batches widen its interval at most, so that it
ends before the few slowest (fastest) runs."""

T95: Mapping[int, float] = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 15: 2.131}
"""Degrees of freedom -> the 97.5th percentile of Student's t."""

MEAN = "latency_ms_mean"
SHARES: Mapping[str, float] = {"latency_ms_p50": 0.5, "latency_ms_p90": 0.9, "latency_ms_p99": 0.99}
"""Figure -> the share of the samples below it."""

TAILS = frozenset({"latency_ms_p90", "latency_ms_p99"})

KNOWN_WITHIN: Mapping[str, float] = {
    "latency_ms_p50": 0.005,
    "latency_ms_p90": 0.01,
    "latency_ms_p99": 0.02,
    MEAN: 0.005,
}
"""Figure -> the larger half of the interval, relative to it, at which it is known well enough. Tails are known less
well."""

MACHINE_CV = 0.1
"""Coefficient of variation of the runs above which it is the machine's, not the engine's."""

PRIOR_DEGREES = 3
PRIOR_SPREAD = 0.5
"""Of KNOWN_WITHIN: the standard deviation between processes that is assumed before there are several."""

MOST_PROCESSES = 4
"""In which a figure near a limit is measured."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the bounds of its 95 % confidence interval, in its unit."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """The same in another unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def inverse(self, factor: float) -> Interval:
        """Of `factor` divided by the figure."""
        if self.low <= 0:
            return Interval(factor / self.value if self.value > 0 else 0.0, factor / max(self.high, 1e-300), 1e30)
        return Interval(factor / self.value, factor / self.high, factor / self.low)

    @property
    def half_width(self) -> float:
        """The larger half, relative to the figure; infinite of a figure of 0 that is not certain."""
        half = max(self.value - self.low, self.high - self.value)
        return half / self.value if self.value > 0 else math.inf if half > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """A figure over processes. `interval` has in it what is within them and what is between them."""

    interval: Interval
    processes: int
    spread: float | None
    """Standard deviation of the figure between processes, with an earlier one, relative to it; None of one alone."""
    is_known: bool
    """Each half of the interval is within what the figure has to be known to."""


def intervals(samples_ms: Samples) -> dict[str, Interval]:
    """Every figure of the samples of one process, in ms; those of the percentiles in their order."""
    found = {figure: interval(samples_ms, figure) for figure in KNOWN_WITHIN}
    return {**found, **in_order({figure: found[figure] for figure in SHARES})}


def in_order(percentiles: Mapping[str, Interval]) -> dict[str, Interval]:
    """The intervals of percentiles of one distribution, the lowest first: none begins or ends below a lower one's.

    Each is found by itself, so a state of the machine may widen one alone. But if the next process may find a median
    as high as that, it finds no lower tail; and a median that is known bounds the tail from below.
    """
    ordered: dict[str, Interval] = {}
    low = high = 0.0
    for name, each in percentiles.items():
        low, high = max(low, each.low), max(high, each.high)
        ordered[name] = Interval(each.value, low, high)
    return ordered


def interval(samples_ms: Samples, figure: str) -> Interval:
    """The figure of the samples of one process, in ms.

    If the measurement is too short for one of the ranks, the interval reaches as far beyond the slowest run as that
    lies from the other end; beyond the fastest one by the same factor.
    """
    count = len(samples_ms)
    if figure == MEAN:
        value = float(samples_ms.mean())
        if count < 2:
            return Interval(value, 0.0, 2 * value)
        within = T95[BATCHES - 1] * math.sqrt(_inflation(samples_ms, BATCHES) / count)
        reach = float(samples_ms.std(ddof=1)) * max(within, _between_batches(samples_ms))
        return Interval(value, min(value, max(value - reach, float(samples_ms.min()))), value + reach)
    return _of_percentile(samples_ms, figure)[0]


def half_width(samples_ms: Samples, figure: str) -> float | None:
    """The larger half of the interval of a figure, relative to it; None if there are too few samples to say."""
    if len(samples_ms) < 2:
        return None
    found, is_long_enough = (
        (interval(samples_ms, figure), True) if figure == MEAN else _of_percentile(samples_ms, figure)
    )
    if not is_long_enough or found.value <= 0:
        return None
    return found.half_width


def are_known(samples_ms: Sequence[float] | Samples, figures: Iterable[str]) -> bool:
    """Whether each of the figures is known well enough."""
    samples = np.asarray(samples_ms)
    widths = {figure: half_width(samples, figure) for figure in figures}
    return all(width is not None and width <= KNOWN_WITHIN[figure] for figure, width in widths.items())


def pooled(found: Sequence[Interval], within: float, earlier: float | None = None) -> Pooled:
    """One figure of one or more processes. `within`: relative half width at which it is known well enough.

    `earlier`: what another process found before, with other weights in the same model. It is no part of the figure, but
    says how far processes differ.
    """
    count = len(found)
    value = sum(each.value for each in found) / count
    low, high = (
        math.sqrt(sum((each.value - bound) ** 2 for each, bound in zip(found, bounds, strict=True))) / count
        for bounds in ([each.low for each in found], [each.high for each in found])
    )
    values = [each.value for each in found] + ([] if earlier is None else [earlier])
    seen, middle = len(values), fmean(values)
    variance = sum((each - middle) ** 2 for each in values) / (seen - 1) if seen > 1 else 0.0
    between = max(0.0, variance - sum((_toward(middle, each) / Z95) ** 2 for each in found) / count)
    degrees = PRIOR_DEGREES + seen - 1
    assumed = (PRIOR_SPREAD * within * value) ** 2
    shared = (PRIOR_DEGREES * assumed + (seen - 1) * between) / degrees
    reach = T95[degrees] * math.sqrt(shared / count)
    lowest = min(*values, *(each.low for each in found))
    around = Interval(value, _below(value, low, reach, lowest), value + math.hypot(high, reach))
    spread = math.sqrt(variance) / value if seen > 1 and value > 0 else None
    return Pooled(around, count, spread, around.half_width <= within)


def _toward(middle: float, found: Interval) -> float:
    """How far an interval reaches toward the middle of several: what it explains of its figure's distance from it."""
    return found.high - found.value if found.value < middle else found.value - found.low


def _below(value: float, low: float, reach: float, lowest: float) -> float:
    """The lower end of an interval. `low`: how far processes by themselves reach below the figure; `reach`: how far
    their differences reach to either side; `lowest`: the lower end of the lowest process.

    It reaches below all of them at most by the factor by which it would reach above the figure.
    """
    if low >= value:
        return 0.0
    by_factor = value * math.exp(-math.hypot(math.log1p(-low / value), math.log1p(reach / value)))
    return max(value - math.hypot(low, reach), min(by_factor, lowest))


def _of_percentile(samples_ms: Samples, figure: str) -> tuple[Interval, bool]:
    """The interval of a percentile, and whether the measurement is long enough for both of its ranks."""
    count = len(samples_ms)
    value = float(np.percentile(samples_ms, 100 * SHARES[figure]))
    below, above = _ranks(samples_ms, figure, value)
    within = np.clip([below, above], 0, count - 1)
    ordered = np.partition(samples_ms, np.unique(within))
    low, high = (float(ordered[rank]) for rank in within)
    if count == 1:
        return Interval(value, 0.0, 2 * value), False
    lowest = low * low / high if below < 0 and high > 0 else low
    highest = 2 * high - low if above >= count else high
    return Interval(value, min(lowest, value), max(highest, value)), below >= 0 and above < count


def _ranks(samples_ms: Samples, figure: str, value: float) -> tuple[int, int]:
    """The places in the ordered samples that the interval of a percentile lies between; they may not be there."""
    count, share = len(samples_ms), SHARES[figure]
    is_below = (samples_ms <= value).astype(np.float64)
    deviation = math.sqrt(share * (1 - share))
    within = T95[BATCHES - 1] * deviation * math.sqrt(_inflation(is_below, BATCHES) / count)
    between = min(deviation * _between_batches(is_below), MOST_OF_A_TAIL * min(share, 1 - share))
    reach = count * max(within, between)
    return math.floor(count * share - reach) - 1, math.ceil(count * share + reach)


def _between_batches(series: Samples) -> float:
    """How far one batch may lie from the whole beyond what its runs explain, in standard deviations of a run; 0 if
    batches are alike."""
    reach = 0.0
    for batches, (unlike, deviations) in UNLIKE.items():
        inflation = _inflation(series, batches)
        if inflation > unlike:
            reach = max(reach, deviations * math.sqrt((inflation - 1) * batches / len(series)))
    return reach


def _inflation(series: Samples, batches: int) -> float:
    """By how much the variance of the mean is larger than that of independent values: 1 at the least."""
    size = len(series) // batches
    variance = float(series.var())
    if size < 2 or variance <= 0:
        return 1.0
    means = series[: size * batches].reshape(batches, size).mean(axis=1)
    return max(1.0, size * float(means.var(ddof=1)) / variance)
