"""How certain a trial's figures are, as it is shown: the same in a leaderboard, a trial, an export and a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from pydantic import Field

from layers.metrics import split_name
from service.common.schemas import Schema

NOISY_CV = 0.025
"""Coefficient of variation above which a measurement is noisy."""

FEASIBLE = (
    "complete, and no constraint is broken; null where nothing was judged, and of a complete trial that cannot be "
    "judged here: `noise.undecided` names the constraints"
)
NOISE = "how certain its latencies are; null where none was measured"


class StoredFigure(TypedDict):
    """Of one metric, as a row has it."""

    low: float
    high: float
    processes: int
    spread: float | None
    known: bool


class StoredNoise(TypedDict):
    """Of a trial, as a row has it."""

    figures: dict[str, StoredFigure]
    undecided: list[str]
    """Constraints whose limit lies within what is known of their metrics."""


_TIMED = ("latency_ms_", "prefill_ms_", "decode_ms_", "time_to_first_token_ms", "tokens_per_s", "throughput_per_s")


def is_timed(name: str) -> bool:
    """Whether a metric is one that a worker may say the interval of."""
    return name.startswith((*_TIMED, "device_ms_per_token")) and "enqueue" not in name


class FigureNoise(Schema):
    """How certain a metric is that was timed."""

    low: float = Field(description="of its 95 % confidence interval, in the metric's unit")
    high: float
    processes: int = Field(description="in how many it was measured: several where a limit is near")
    spread: float | None = Field(description="standard deviation between them, relative to the metric")
    known: bool = Field(description="well enough to be judged by, even where a limit lies in the interval")


class TrialNoise(Schema):
    """How noisy a trial's measurement is."""

    cv: float = Field(description="the largest latency_cv: standard deviation over mean of the runs of a process")
    noisy: bool = Field(description=f"cv is above {NOISY_CV}")
    figures: dict[str, FigureNoise] = Field(
        description="metric -> its interval, of the latencies that the sweep uses and the percentiles that are shown"
    )
    judged: Literal["yes", "no", "cannot"] = Field(
        description="whether the constraints were judged; cannot: a limit lies within the noise"
    )
    undecided: list[str] = Field(description="the constraints that cannot be judged here")


def shown(stored: StoredNoise | None, metrics: Mapping[str, float], feasible: bool | None) -> TrialNoise | None:
    """What is known of a trial's noise; None if no latency was measured."""
    cvs = [value for name, value in metrics.items() if split_name(name)[0] == "latency_cv"]
    if not cvs:
        return None
    known: StoredNoise = stored or {"figures": {}, "undecided": []}
    undecided = known["undecided"]
    return TrialNoise(
        cv=max(cvs),
        noisy=max(cvs) > NOISY_CV,
        figures={name: FigureNoise(**each) for name, each in known["figures"].items()},
        judged="yes" if feasible is not None else "cannot" if undecided else "no",
        undecided=list(undecided),
    )
