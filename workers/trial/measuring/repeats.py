"""Whether a latency is measured in further processes, and what they say together.

A measurement near a limit is repeated if that may decide it: while the limit lies in the figure's interval, but would
lie outside if all further processes were calm and found the same figure. If it stays undecided, the figure itself
decides if it is known well enough; otherwise the constraint cannot be judged.

An engine does the same work in each run. If runs differ a lot (MACHINE_CV), a tail exceeds the median because of other
programs on the machine, so the interval of the tail then begins where that of the median does. A throughput, which is
of the mean latency, then ends at that of the median.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from layers.expressions.constraints import Bounds, Constraint
from layers.metrics import named_at
from layers.parameter import Scalar
from workers.engine.confidence import KNOWN_WITHIN, MACHINE_CV, MOST_PROCESSES, Interval, Pooled, in_order, pooled
from workers.service.messages import FigureNoise

_MEDIAN, _MEAN = (KNOWN_WITHIN[figure] for figure in ("latency_ms_p50", "latency_ms_mean"))

WITHIN: Mapping[str, float] = {
    **KNOWN_WITHIN,
    "device_ms_per_token": _MEDIAN,
    "throughput_per_s": _MEAN,
    **{
        f"{part}_p{share}": KNOWN_WITHIN[f"latency_ms_p{share}"]
        for part in ("prefill_ms", "decode_ms_per_token")
        for share in (50, 90, 99)
    },
    "time_to_first_token_ms": _MEDIAN,
    "tokens_per_s": _MEDIAN,
}
"""Metric -> the half width of its interval, relative to it, at which it is known well enough to judge by."""

PERCENTILES: Sequence[Sequence[str]] = [
    [f"{part}_p{share}" for share in (50, 90, 99)] for part in ("latency_ms", "prefill_ms", "decode_ms_per_token")
]
"""The percentiles of each distribution, the lowest first."""

MEDIANS: Mapping[str, str] = {
    "latency_ms_mean": "latency_ms_p50",
    "throughput_per_s": "latency_ms_p50",
    **{tail: median for median, *tails in PERCENTILES for tail in tails},
}
"""Metric of a tail, or one that a tail affects -> the metric of its median."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """What one process measured, by the metrics' names without a shape."""

    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    """Intervals within the process, for the metrics that have one."""
    cvs: Mapping[str, float]
    """The coefficient of variation of the runs, for metrics with a tail."""


class Repeats:
    """The figures of one engine over several processes, as the sweep's constraints see them."""

    def __init__(
        self,
        constraints: Sequence[Constraint],
        known: Mapping[str, Scalar],
        first: ProcessFigures,
        shape: str | None,
    ) -> None:
        """`known`: parameters, metrics that are not measured here, and an earlier measurement of those that are;
        `shape`: the shape that is measured."""
        self._known = known
        self._shape = shape
        self._found = [first]
        measured = {named_at(name, shape) for name in first.intervals}
        self._constraints = [each for each in constraints if measured & set(each.metrics)]

    def add(self, found: ProcessFigures) -> None:
        """Add what one more process measured."""
        self._found.append(found)

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric over the processes."""
        return {name: fmean(each.metrics[name] for each in self._found) for name in self._found[0].metrics}

    @property
    def figures(self) -> dict[str, Pooled]:
        """Metric with its shape -> the pooled figure."""
        return self._figures()

    def _figures(self, *, hoped: bool = False) -> dict[str, Pooled]:
        """`hoped`: as of `_pooled`."""
        found = {name: self._pooled(name, hoped=hoped) for name in self._found[0].intervals}
        for names in PERCENTILES:
            ordered = in_order({name: found[name].interval for name in names if name in found})
            for name, interval in ordered.items():
                is_known = found[name].is_known and interval.half_width <= WITHIN[name]
                found[name] = replace(found[name], interval=interval, is_known=is_known)
        return {named_at(name, self._shape): each for name, each in found.items()}

    def _pooled(self, name: str, *, hoped: bool = False) -> Pooled:
        """`hoped`: with all further processes that there may be, if each finds the same figure without any noise."""
        intervals = [each.intervals[name] for each in self._found]
        cvs = [each.cvs.get(name, 0.0) for each in self._found]
        if hoped:
            more = MOST_PROCESSES - len(intervals)
            same = fmean(each.value for each in intervals)
            intervals += [Interval(same, same, same)] * more
            cvs += [0.0] * more
        earlier = self._known.get(named_at(name, self._shape))
        found = pooled(intervals, WITHIN[name], float(earlier) if isinstance(earlier, int | float) else None)
        if fmean(cvs) <= MACHINE_CV:
            return found
        value, median = found.interval.value, self._pooled(MEDIANS[name], hoped=hoped).interval
        calm = found.interval
        # Slow states may outlast fast ones: a median that is above the mean is no bound of it.
        if name == "throughput_per_s":
            at_median = median.inverse(value * fmean(each.metrics["latency_ms_mean"] for each in self._found)).high
            calm = replace(calm, high=at_median if at_median >= value else calm.high)
        else:
            calm = replace(calm, low=median.low if median.low <= value else calm.low)
        return replace(found, interval=calm, is_known=False)

    def are_wanted(self) -> bool:
        """Whether one more process may decide a constraint."""
        if not self._constraints or len(self._found) >= MOST_PROCESSES:
            return False
        figures, hoped = self.figures, self._figures(hoped=True)
        return any(
            self._is_undecided(constraint, figures) and not self._is_undecided(constraint, hoped)
            for constraint in self._constraints
        )

    def _is_undecided(self, constraint: Constraint, figures: Mapping[str, Pooled]) -> bool:
        values = {**self._known, **{name: each.interval.value for name, each in figures.items()}}
        return constraint.verdict(values, uncertain(figures)) == "undecided"

    @property
    def noise(self) -> dict[str, FigureNoise]:
        """The noise as the trial keeps it."""
        return {
            name: {
                "low": each.interval.low,
                "high": each.interval.high,
                "processes": each.processes,
                "spread": each.spread,
                "known": each.is_known,
            }
            for name, each in self.figures.items()
        }


def uncertain(figures: Mapping[str, Pooled]) -> dict[str, Bounds]:
    """The intervals of figures that are not known well enough to judge by."""
    return {name: (each.interval.low, each.interval.high) for name, each in figures.items() if not each.is_known}
