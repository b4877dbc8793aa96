"""Limits on a trial that is measured anew, as they cross HTTP. An interval is of what all builds have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from layers.metrics import LARGEST
from layersweep.json_values import JsonObject
from service.assertions.rank_intervals import MOST_BUILDS
from service.common.schemas import Count, Integer, Request, Schema

Limits = Annotated[
    list[Annotated[str, Field(max_length=300)]],
    Field(
        min_length=1,
        max_length=8,
        description="comparisons as in a sweep's constraints, in which `baseline` is what the metric was before: "
        "latency_ms_p50 <= 1.02 * baseline",
    ),
]

Figure = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]

Verdict = Literal["kept", "broken", "undecided"]


class RemeasurementRequest(Request):
    """`:remeasure`: which trial, for which limits, in how many builds."""

    limits: Limits
    trial: Count | None = Field(default=None, description="its number; left out: the recommended trial")
    builds: Integer = Field(default=5, ge=1, le=MOST_BUILDS, description="each with other weights, in a fresh process")


class MeasuredMetric(Request):
    """One metric of every build, in its unit."""

    value: Figure = Field(description="the median of the builds")
    builds: list[Figure] = Field(min_length=1, max_length=MOST_BUILDS, description="in the order of the builds")


class Baseline(Request):
    """What was measured, where and with what: the baseline of later measurements."""

    format: Integer = Field(default=1, ge=1, le=1, description="of this object")
    name: str = Field(max_length=300, description="of the sweep that measured it")
    target: str = Field(max_length=300, description="runtime, its version and the device")
    results_version: Count | None = Field(description="results of another version are not compared")
    inference: JsonObject = Field(max_length=40, description="the shape or shapes that were measured")
    measured_at: str = Field(max_length=40, description="RFC 3339")
    versions: dict[str, Annotated[str, Field(max_length=300)]] = Field(
        max_length=40, description="what the worker said of itself; for people"
    )
    metrics: dict[str, MeasuredMetric] = Field(max_length=40)


class JudgementRequest(Request):
    """`:judge`: the limits, and what `baseline` in them means: an object kept from an earlier judgement, or a sweep."""

    limits: Limits
    baseline: Baseline | None = Field(default=None, description="`measured` of an earlier judgement")
    against: str | None = Field(
        default=None, max_length=64, description="in its place: the id of a sweep that measured the other trial beside"
    )
    risk_of_alarm: float = Field(
        default=0.05, ge=0.0001, le=1, description="with which a limit that is kept may be called broken"
    )
    risk_of_miss: float = Field(
        default=0.05, ge=0.0001, le=1, description="with which a limit that is broken may be called kept"
    )


class Range(Schema):
    """An estimate with its bounds; a bound is null where there are too few builds to have one.

    `low` is too high with `risk_of_alarm`, `high` too low with `risk_of_miss`, at most.
    """

    estimate: float
    low: float | None
    high: float | None


class JudgedLimit(Schema):
    limit: str
    metrics: list[str] = Field(description="those in it, by their names in full")
    verdict: Verdict = Field(description="undecided: its interval has kept and broken values in it")
    excess: Range = Field(description="by how much it is broken, in the unit of what it compares; 0 and below: kept")
    baseline: float | None = Field(description="the median of the baseline's builds; null where it names none")
    change: Range | None = Field(description="of the metric against the baseline, as a share: 0.05 is 5 % more")


class Judgement(Schema):
    """Whether a trial that was measured anew keeps its limits."""

    id: str = Field(description="of the sweep that measured it")
    verdict: Verdict = Field(description="broken where one limit is; else undecided where one is; else kept")
    builds: int
    risk_of_alarm: float
    risk_of_miss: float
    limits: list[JudgedLimit]
    measured: Baseline
