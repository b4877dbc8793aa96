"""How certain a measured loss is: its sampling error, that of a difference of two models, and its spread over seeds.

A mean over a split of T tokens is an estimate. Its standard error is taken from the sums over consecutive blocks of the
split (batch means: tokens next to one another are not independent, blocks are nearly so), as that of a ratio of sums
(Cochran 1977, Sampling Techniques, section 6.3). Two models that saw the same blocks are compared block by block: what
makes a block hard makes it hard for both, and cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layersweep.json_values import JsonObject

CONFIDENCE = 0.95

LEAST_SHARE, LEAST_NATS = 0.001, 0.0001
"""What is smaller is shown as less than that: 0.0 % would say that there is none."""

BLOCKS_MEASUREMENT = "loss_blocks"
"""The measurement of a trial that holds, for each split, the sums by block."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Summed losses (nats) and weights of the consecutive blocks of a split."""

    loss_sums: tuple[float, ...]
    weight_sums: tuple[float, ...]

    @classmethod
    def read(cls, data: JsonObject | None) -> Blocks | None:
        """From a worker's measurement; None if there is none, or it cannot be one."""
        if not data:
            return None
        losses, weights = _numbers(data.get("loss_sums")), _numbers(data.get("weight_sums"))
        if not losses or len(losses) != len(weights) or sum(weights) <= 0:
            return None
        return cls(losses, weights)

    @property
    def mean(self) -> float:
        """Nats per token (or per example)."""
        return sum(self.loss_sums) / sum(self.weight_sums)


def sampling_error(blocks: Blocks | None) -> float | None:
    """Standard error in nats of the mean loss of the split; None below two blocks."""
    if blocks is None:
        return None
    return _ratio_error(np.asarray(blocks.loss_sums), np.asarray(blocks.weight_sums))


def difference_error(one: Blocks | None, other: Blocks | None) -> float | None:
    """Standard error in nats of the difference of two mean losses; paired if both saw the same blocks."""
    if one is not None and other is not None and _same_blocks(one, other):
        differences = np.asarray(one.loss_sums) - np.asarray(other.loss_sums)
        return _ratio_error(differences, np.asarray(one.weight_sums))
    errors = sampling_error(one), sampling_error(other)
    return None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])


def pooled_spread(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over configurations; None if none has two."""
    able = [group for group in groups if len(group) > 1]
    if not able:
        return None
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in able)
    return math.sqrt(squares / sum(len(group) - 1 for group in able))


def _same_blocks(one: Blocks, other: Blocks) -> bool:
    return len(one.weight_sums) == len(other.weight_sums) and bool(np.allclose(one.weight_sums, other.weight_sums))


def _ratio_error(sums: np.ndarray, weights: np.ndarray) -> float | None:
    count = len(sums)
    if count < 2:
        return None
    residuals = sums - sums.sum() / weights.sum() * weights
    return float(math.sqrt(count / (count - 1) * float(np.square(residuals).sum())) / weights.sum())


def _numbers(values: Any) -> tuple[float, ...]:
    """Empty if it is not a list of finite numbers."""
    if not isinstance(values, list) or not all(
        isinstance(each, int | float) and math.isfinite(each) for each in values
    ):
        return ()
    return tuple(float(each) for each in values)
