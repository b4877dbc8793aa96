"""How noisy measurements are, as the service says it."""

from __future__ import annotations

from typing import Literal, TypedDict


class FigureNoise(TypedDict):
    """A 95 % confidence interval, in the metric's unit."""

    low: float
    high: float
    processes: int
    spread: float | None
    known: bool


class TrialNoise(TypedDict):
    """How noisy a trial's measurement is. `judged` is `cannot` if a limit lies within the noise."""

    cv: float
    noisy: bool
    figures: dict[str, FigureNoise]
    judged: Literal["yes", "no", "cannot"]
    undecided: list[str]


class SweepNoise(TypedDict):
    """How noisy a sweep's measurements are, and what cannot be judged because of it, in words too (`says`)."""

    measured: int
    noisy: int
    cv_low: float | None
    cv_high: float | None
    not_judged: int
    metrics: list[str]
    level: Literal["none", "note", "warning"]
    says: str | None
