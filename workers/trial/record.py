"""What an attempt has found so far, kept so that a trial that ends early still reports all that was learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from layers.metrics import METRICS
from workers.engine.protocol import JsonObject
from workers.trial.outcomes import Finish, TrialEndedError


@dataclass(frozen=True, slots=True)
class Findings:
    """Metrics and measurements by name, at one moment."""

    metrics: Mapping[str, float]
    measurements: Mapping[str, JsonObject]


class TrialRecord:
    """Steps write to it as soon as they know something, and never read it: what a step needs of another is passed."""

    def __init__(self) -> None:
        self._metrics: dict[str, float] = {}
        self._measurements: dict[str, JsonObject] = {}
        self._seconds: dict[str, float] = {}
        self._cached_engines: list[str] = []

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Keep metrics; a later value of a name replaces an earlier one."""
        self._metrics |= metrics

    def set_measurement(self, name: str, measurement: Mapping[str, object]) -> None:
        """Keep a measurement, in place of an earlier one of that name."""
        self._measurements[name] = dict(measurement)

    def extend_measurement(self, name: str, more: Mapping[str, object]) -> None:
        """Add fields to a measurement."""
        self._measurements.setdefault(name, {}).update(more)

    def add_seconds(self, work: str, seconds: float) -> None:
        """Keep how long a phase, or a part of one, took."""
        self._seconds[work] = seconds

    def add_more_seconds(self, work: str, seconds: float) -> None:
        """Keep how long more a work took that is done several times."""
        self._seconds[work] = self._seconds.get(work, 0.0) + seconds

    def add_cached_engine(self, name: str) -> None:
        """Keep that an engine was not built, but taken from the cache."""
        self._cached_engines.append(name)

    def findings(self) -> Findings:
        """All metrics and measurements so far."""
        return Findings(dict(self._metrics), dict(self._measurements))

    def finish(self, ended: TrialEndedError | None) -> Finish:
        """The result, with the outcome that ended the attempt early; None: it came to its end."""
        cost: JsonObject = {f"{work}_seconds": seconds for work, seconds in self._seconds.items()}
        cost["engines_from_cache"] = self._cached_engines
        metrics = {name: value for name, value in self._metrics.items() if math.isfinite(value)}
        measurements = {**self._measurements, "cost": cost}
        if ended is None:
            return Finish("complete", None, metrics, measurements)
        return Finish(ended.outcome, ended.reason, metrics, measurements, ended.log)


def metrics_in(result: Mapping[str, object]) -> dict[str, float]:
    """The fields of a child's answer that are metrics of a trial and have a value."""
    known = {name: value for name, value in result.items() if name in METRICS}
    return {name: value for name, value in known.items() if isinstance(value, int | float)}
