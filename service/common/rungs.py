"""Where a training is judged, and what its curve shows there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

FRACTIONS = tuple(Fraction(ninths, 9) for ninths in (1, 2, 3, 4, 6))
"""Of the budget of steps, never of time: the same training is judged at the same steps on every machine."""

RECENT_SHARE = 0.5
"""A validation loss counts at a rung if it was taken in the last half of the way to it."""

AVERAGED_SHARE = 0.25
"""Else the training losses of the last quarter of the way to it are averaged: single batches differ."""

LossesByStep: TypeAlias = Sequence[tuple[int, Mapping[str, object]]]
"""Points of a curve, by growing steps."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A loss that a curve shows at a rung, and which of its losses it is."""

    metric: str
    loss: float


def rung_steps(steps: int | None) -> list[int]:
    """The steps at which a training of so many is judged, after each of the fractions; none if steps are not set."""
    return [] if steps is None else list(_rung_steps(steps))


@lru_cache(maxsize=1024)
def _rung_steps(steps: int) -> tuple[int, ...]:
    return tuple(max(1, math.ceil(fraction * steps)) for fraction in FRACTIONS)


def shown_at(step: int, curve: LossesByStep) -> Shown | None:
    """What a curve shows up to a step; None if it has no losses there."""
    until = [(at, losses) for at, losses in curve if at <= step]
    validated = [(at, loss) for at, losses in until if (loss := _number(losses, "validation_loss")) is not None]
    if validated and validated[-1][0] > RECENT_SHARE * step:
        return Shown("validation_loss", validated[-1][1])
    trained = [(at, loss) for at, losses in until if (loss := _number(losses, "training_loss")) is not None]
    recent = [loss for at, loss in trained if at > (1 - AVERAGED_SHARE) * step] or [loss for _, loss in trained[-1:]]
    return Shown("training_loss", math.fsum(recent) / len(recent)) if recent else None


def _number(losses: Mapping[str, object], name: str) -> float | None:
    value = losses.get(name)
    return float(value) if isinstance(value, int | float) else None
