"""A trial's figures as means over its trainings, brought up to date by one training after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping

LOSS, ERROR, TRAININGS = "validation_loss", "validation_loss_stderr", "trainings"

LEARNT = (
    LOSS,
    "reference_loss",
    "precision_gap",
    "training_loss",
    "generalization_gap",
    "accuracy",
    "bits_per_byte",
)
"""What differs from training to training of one configuration, and is shown as a mean."""


def trainings_of(metrics: Mapping[str, float]) -> int:
    """How many trainings the figures are means of."""
    return max(1, int(metrics.get(TRAININGS, 1)))


def squares_of(metrics: Mapping[str, float]) -> float:
    """Summed squared deviations of the losses from their mean."""
    count, error = float(trainings_of(metrics)), metrics.get(ERROR, 0.0)
    return error * error * count * (count - 1)


def with_training(metrics: Mapping[str, float], further: Mapping[str, float]) -> dict[str, float]:
    """A trial's figures with those of one more training worked in (Welford 1962)."""
    count = trainings_of(metrics)
    means = {
        name: metrics[name] + (further[name] - metrics[name]) / (count + 1)
        for name in LEARNT
        if name in metrics and name in further
    }
    squares = squares_of(metrics) + (further[LOSS] - metrics[LOSS]) * (further[LOSS] - means[LOSS])
    error = math.sqrt(max(squares, 0.0) / count / (count + 1))
    return {**metrics, **means, ERROR: error, TRAININGS: count + 1}
