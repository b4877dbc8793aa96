"""The shapes of what the service answers when a trial is measured anew and limits are judged."""

from __future__ import annotations

from typing import Literal, TypedDict

Verdict = Literal["kept", "broken", "undecided"]


class Range(TypedDict):
    """An estimate with its bounds; a bound is None if there are too few builds to have one."""

    estimate: float
    low: float | None
    high: float | None


class MeasuredMetric(TypedDict):
    """One metric of every build, in its unit; `value` is the median of `builds`."""

    value: float
    builds: list[float]


class Baseline(TypedDict):
    """What was measured, where and with what: what later measurements are compared with."""

    format: int
    name: str
    target: str
    results_version: int | None
    inference: dict[str, object]
    measured_at: str
    versions: dict[str, str]
    metrics: dict[str, MeasuredMetric]


class JudgedLimit(TypedDict):
    """One limit. `excess` is how far it is broken, in the unit of what it compares; 0 and below: it is kept.

    `change` is the metric's against the baseline, as a share; None for a limit that names no baseline.
    """

    limit: str
    metrics: list[str]
    verdict: Verdict
    excess: Range
    baseline: float | None
    change: Range | None


class Judgement(TypedDict):
    """Whether a trial that was measured anew keeps its limits. `id` is that of the sweep that measured it."""

    id: str
    verdict: Verdict
    builds: int
    risk_of_alarm: float
    risk_of_miss: float
    limits: list[JudgedLimit]
    measured: Baseline
