"""What an attempt has found so far, so that a trial that ends early still reports it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from layers.metrics import AT, METRICS, named_at
from workers.engine.protocol import JsonObject
from workers.service.messages import FigureNoise
from workers.trial.outcomes import Finish, TrialEndedError

OF_EACH_SHAPE = (
    "environment",
    "memory",
    "parity",
    "latency_first",
    "latency_samples_ms",
    "quantization",
    "generation",
    "processes",
    "ranks",
)
"""Measurements that are made at each shape."""

OVER_SHAPES: Mapping[str, Callable[[Iterable[float]], float]] = {
    "build_seconds": sum,
    "parity_error": max,
    "parity_error_worst": max,
}
"""Metric of each shape's engine -> how the trial's figure follows: the builds add up, the worst parity counts."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the records of one attempt's shapes share."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    of_shapes: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Of the metrics in OVER_SHAPES the figure of each shape."""
    measurements: dict[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    noise: dict[str, FigureNoise] = field(default_factory=dict[str, FigureNoise])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    alone_seconds: dict[str, float] = field(default_factory=dict[str, float])
    cached_engines: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Findings:
    """Metrics and measurements by name, at one moment."""

    metrics: Mapping[str, float]
    measurements: Mapping[str, JsonObject]
    noise: Mapping[str, FigureNoise]
    """Metric -> how certain it is, of those that were timed."""


class TrialRecord:
    """Steps write to it as soon as they know something, and never read it: what a step needs of another is passed.

    A record at a shape writes to the same findings, under the shape's names: `latency_ms_p50` is kept as
    `latency_ms_p50@chat`.
    """

    def __init__(self, shape: str | None = None, found: _Found | None = None) -> None:
        self._shape = shape
        self._found = found or _Found()

    def at(self, shape: str) -> TrialRecord:
        """The same record for what is found at a shape."""
        return TrialRecord(shape, self._found)

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Keep metrics; a later value of a name replaces an earlier one."""
        for name, value in metrics.items():
            if self._shape is not None and name in OVER_SHAPES:
                figures = self._found.of_shapes.setdefault(name, {})
                figures[self._shape] = value
                self._found.metrics[name] = OVER_SHAPES[name](figures.values())
            else:
                self._found.metrics[named_at(name, self._shape)] = value

    def add_noise(self, noise: Mapping[str, FigureNoise]) -> None:
        """Keep how certain metrics are, by their names with a shape, in place of what an earlier measurement said."""
        self._found.noise.update(noise)

    def set_measurement(self, name: str, measurement: Mapping[str, object]) -> None:
        """Keep a measurement; it replaces an earlier one of the same name."""
        self._found.measurements[self._measurement(name)] = dict(measurement)

    def extend_measurement(self, name: str, more: Mapping[str, object]) -> None:
        """Add fields to a measurement."""
        self._found.measurements.setdefault(self._measurement(name), {}).update(more)

    def _measurement(self, name: str) -> str:
        return name if self._shape is None or name not in OF_EACH_SHAPE else f"{name}{AT}{self._shape}"

    def add_seconds(self, work: str, seconds: float) -> None:
        """Keep how long a phase, or a part of one, took: at all shapes together."""
        if self._shape is None:
            self._found.seconds[work] = seconds
        else:
            self.add_more_seconds(work, seconds)

    def add_more_seconds(self, work: str, seconds: float) -> None:
        """Keep how long more a work took that is done several times."""
        self._found.seconds[work] = self._found.seconds.get(work, 0.0) + seconds

    def add_alone(self, cause: str, seconds: float) -> None:
        """Keep for how long the attempt had the device to itself, beside what it had it for so before."""
        self._found.alone_seconds[cause] = self._found.alone_seconds.get(cause, 0.0) + seconds

    def add_cached_engine(self, name: str) -> None:
        """Keep that an engine was not built, but taken from the cache."""
        self._found.cached_engines.append(name if self._shape is None else f"{name}{AT}{self._shape}")

    def findings(self) -> Findings:
        """All metrics and measurements so far."""
        return Findings(dict(self._found.metrics), dict(self._found.measurements), dict(self._found.noise))

    def finish(self, ended: TrialEndedError | None) -> Finish:
        """The result, with the outcome that ended the attempt early; None: it came to its end."""
        cost: JsonObject = {f"{work}_seconds": seconds for work, seconds in self._found.seconds.items()}
        cost["engines_from_cache"] = self._found.cached_engines
        if self._found.alone_seconds:
            cost["alone"] = {cause: round(seconds, 4) for cause, seconds in self._found.alone_seconds.items()}
        metrics = {name: value for name, value in self._found.metrics.items() if math.isfinite(value)}
        measurements = {**self._found.measurements, "cost": cost}
        noise = {name: each for name, each in self._found.noise.items() if name in metrics}
        if ended is None:
            return Finish("complete", None, metrics, measurements, noise)
        return Finish(ended.outcome, ended.reason, metrics, measurements, noise, ended.log)


def metrics_in(result: Mapping[str, object]) -> dict[str, float]:
    """The fields of a child's answer that are metrics of a trial and have a value."""
    known = {name: value for name, value in result.items() if name in METRICS}
    return {name: value for name, value in known.items() if isinstance(value, int | float)}
