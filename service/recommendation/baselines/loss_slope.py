"""How fast a training's loss still fell at its end, and how many steps that leaves to a lower loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.leases.schemas import CurvePoint

LAST_SHARE = 0.25
"""The slope is that of the curve from this share of its steps on: of its last two doublings."""

FEWEST_POINTS = 4
MOST_TIMES = 8.0
"""Beyond so many times the steps a slope is not extrapolated: three doublings from two seen."""


@dataclass(frozen=True, slots=True)
class LossSlope:
    """A line through the last part of a curve: loss in nats against the logarithm of the step."""

    metric: str
    from_step: int
    to_step: int
    nats_per_doubling: float
    """Change of the loss each time the steps double; negative if it falls."""
    standard_error: float

    @property
    def falls(self) -> bool:
        """By more than the scatter of its points explains (two standard errors)."""
        return self.nats_per_doubling + 2 * self.standard_error < 0

    def times_to(self, nats: float) -> float | None:
        """By how much the steps have to be multiplied until the loss has fallen by `nats`, at this rate; None if it
        does not fall, or if that is too far to be said."""
        return _times(nats, self.nats_per_doubling) if self.falls else None

    def times_at_most(self, nats: float) -> float | None:
        """The same at the slowest rate that the scatter of its points allows (two standard errors)."""
        return _times(nats, self.nats_per_doubling + 2 * self.standard_error) if self.falls else None


def _times(nats: float, nats_per_doubling: float) -> float | None:
    doublings = nats / -nats_per_doubling
    return 2.0**doublings if doublings <= math.log2(MOST_TIMES) else None


def loss_slope(curve: Sequence[CurvePoint], warmup_steps: int = 0) -> LossSlope | None:
    """The slope of the validation loss, or of the training loss if few were validated; None with too few points.

    What lies within the warm-up is left out: a loss falls faster while the learning rate rises.
    """
    for metric in ("validation_loss", "training_loss"):
        known = [(point.step, loss) for point in curve if (loss := getattr(point, metric)) is not None]
        last = max((step for step, _ in known), default=0)
        first = max(1.0, LAST_SHARE * last, warmup_steps)
        part = [(step, loss) for step, loss in known if step >= first and math.isfinite(loss)]
        if len(part) >= FEWEST_POINTS:
            return _fit(metric, part)
    return None


def _fit(metric: str, points: Sequence[tuple[int, float]]) -> LossSlope:
    steps = np.array([step for step, _ in points], dtype=float)
    losses = np.array([loss for _, loss in points], dtype=float)
    doublings = np.log2(steps) - np.log2(steps).mean()
    spread = float(np.square(doublings).sum())
    slope = float((doublings * (losses - losses.mean())).sum()) / spread
    residuals = losses - losses.mean() - slope * doublings
    error = math.sqrt(float(np.square(residuals).sum()) / (len(points) - 2) / spread)
    return LossSlope(metric, points[0][0], points[-1][0], slope, error)
