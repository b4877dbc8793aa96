"""The shapes of what the service answers of a sweep's analyses."""

from __future__ import annotations

from typing import TypedDict

from layersweep.records.sweeps import Objective, Scalar, TrialState


class Interval(TypedDict):
    low: float
    high: float


class Importance(TypedDict):
    """Objective -> parameter -> share; `intervals` and `noise` likewise."""

    sweep: str
    trials: int
    total: int
    fewest_trials: int
    objectives: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval]]
    noise: dict[str, dict[str, float]]
    resamples: dict[str, int]
    constant: list[str]


class EffectLevel(TypedDict):
    """One value of the parameter, or the range from `low` to `high`."""

    low: Scalar
    high: Scalar
    trials: int
    best: float
    quartile_1: float
    median: float
    quartile_3: float


class Effect(TypedDict):
    """A metric of the feasible complete trials by the value of one parameter."""

    sweep: str
    parameter: str
    metric: str
    trials: int
    levels: list[EffectLevel]
    constant: bool


class ColumnSample(TypedDict):
    """Metrics and parameters of measured trials, a list each, in the order of the trials' numbers."""

    sweep: str
    total: int
    trial: list[str]
    number: list[int]
    state: list[TrialState]
    rank: list[int | None]
    feasible: list[bool]
    values: dict[str, list[Scalar | None]]


class Limit(TypedDict):
    """Where a constraint on one metric lies."""

    constraint: str
    metric: str
    value: float


class Tradeoff(TypedDict):
    """Two axes of a sweep; `edge` in the order of `x`, a dict a trial."""

    x: str
    y: str
    sample: ColumnSample
    edge: list[dict[str, float]]
    limits: list[Limit]
    tied: list[str]
    """Trials behind the front, by less than the latencies are known to."""


class HypervolumeStep(TypedDict):
    """The trial that raised the share, and how many feasible trials were complete then."""

    trials: int
    number: int
    ended_at: str
    share: float


class Hypervolume(TypedDict):
    """The share of the box between the front's best values and `reference` that the trials so far dominate."""

    sweep: str
    objectives: list[Objective]
    reference: dict[str, float]
    trials: int
    steps: list[HypervolumeStep]
    reason: str | None
