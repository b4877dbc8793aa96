"""The loss from the engine's own outputs: engine, then loss graph, batch by batch. Logits never leave the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .base import Engine, LossSums
from .protocol import Progress, RequestError, invalid

PROGRESS_SECONDS = 1.0
"""How often progress is reported, at most."""

BLOCKS = 64
"""Consecutive batches are summed in at most so many blocks: enough to see how much the loss differs along a split, and
long enough that neighbouring blocks are nearly independent."""


@dataclass(frozen=True)
class SplitLoss:
    """Sums over a split, and the same over its blocks: how far these differ says how certain the mean is."""

    loss_sum: float
    weight_sum: float
    correct: float
    block_loss_sums: list[float]
    block_weight_sums: list[float]


def evaluate(
    engine: Engine,
    loss_graph: Path,
    batches: Mapping[str, np.ndarray],
    progress: Progress,
    *,
    give_way: Callable[[], object] = lambda: None,
) -> SplitLoss:
    """Sums over all batches, added up in float64.

    `batches`: `targets` and `weights` [N, ...] and the engine's inputs by name [N, ...], N batches each; an engine with
    one input may find it under `inputs`. Reports progress {batch, batches}. `give_way` is called before each batch.
    Raises RequestError: "invalid" if arrays are missing or do not fit, "internal" if a sum is not finite.
    """
    engine.require_loaded()
    inputs = dict(batches)
    targets, weights = _take(inputs, "targets"), _take(inputs, "weights")
    if len(engine.inputs) == 1 and "inputs" in inputs:
        inputs = {**inputs, engine.inputs[0].name: inputs["inputs"]}
        if engine.inputs[0].name != "inputs":
            del inputs["inputs"]
    count = _count({"targets": targets, "weights": weights, **inputs})
    give_way()
    engine.attach_loss(loss_graph)

    found: list[LossSums] = []
    loss_sum = 0.0
    reported = time.monotonic()
    for index in range(count):
        give_way()
        batch = {name: array[index] for name, array in inputs.items()}
        sums = engine.loss(batch, targets[index], weights[index])
        found.append(sums)
        loss_sum += sums.loss_sum
        if not math.isfinite(loss_sum):
            raise RequestError("internal", f"the loss of batch {index} is {sums.loss_sum}: check the logits")
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            progress({"batch": index + 1, "batches": count})
    return SplitLoss(
        loss_sum,
        sum(sums.weight_sum for sums in found),
        sum(sums.correct for sums in found),
        _by_block([sums.loss_sum for sums in found]),
        _by_block([sums.weight_sum for sums in found]),
    )


def _by_block(values: list[float]) -> list[float]:
    return [float(block.sum()) for block in np.array_split(np.asarray(values), min(BLOCKS, len(values)))]


def _take(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise invalid(f"the batches lack {name}; given: {', '.join(sorted(arrays)) or 'nothing'}")
    return arrays.pop(name)


def _count(arrays: Mapping[str, np.ndarray]) -> int:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise invalid(f"every array holds the same number of batches, at least one; given: {counts}")
    return next(iter(counts.values()))
