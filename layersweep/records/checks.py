"""The shape of what `sweep check` says of the points that it built."""

from __future__ import annotations

from typing import Literal, TypedDict

from layersweep.records.sweeps import Scalar

BuildOutcome = Literal["builds", "infeasible", "fails"]


class CheckedTarget(TypedDict):
    runtime: str
    version: str
    device_model: str


class BuildFinding(TypedDict):
    """What became of one point."""

    outcome: BuildOutcome
    reason: str | None
    parameters: dict[str, Scalar]
    build_seconds: float | None
    engine_bytes: int | None
    weights_bytes: int | None


class BuildReason(TypedDict):
    """Why so many points do not build; `shared`: values that these have and others lack."""

    outcome: BuildOutcome
    reason: str
    points: int
    shared: dict[str, Scalar]


class SpaceCheckReport(TypedDict):
    """Ranges are of the points that build: the least and the most."""

    target: CheckedTarget
    whole_space: bool
    points: int
    break_a_rule: int
    outcomes: dict[BuildOutcome, int]
    reasons: list[BuildReason]
    build_seconds: tuple[float, float] | None
    engine_bytes: tuple[int, int] | None
    weights_bytes: tuple[int, int] | None
    findings: list[BuildFinding]
