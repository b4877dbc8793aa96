"""What a model of the device predicted in place of a build before a training, as the service says it."""

from __future__ import annotations

from typing import TypedDict


class PredictedFigure(TypedDict):
    """It is more than `low` with a certainty of 99 %, and so less than `high`."""

    median: float
    low: float
    high: float


class PredictedHardware(TypedDict):
    """Of one trial: what its sweep limits or its pruner compares, and in words why no build was needed first."""

    figures: dict[str, PredictedFigure]
    reason: str


class SparedBuilds(TypedDict):
    """How many trials of a sweep were not built first, and how many of them broke a limit after all."""

    trials: int
    broken: int
