"""An engine of a downloaded trial, run by the code that measured it in the sweep: for engines that are not of ONNX
Runtime."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from workers.engine import latency, loss
from workers.engine.__main__ import RUNTIMES
from workers.engine.base import Engine, RowWrite
from workers.trial.download.loader import WARMUP_SECONDS, Arrays


class CheckoutGraph:
    """A loaded engine, as `run.py` takes one."""

    def __init__(self, runtime: str, path: Path) -> None:
        module, name = RUNTIMES[runtime]
        self._engine: Engine = getattr(import_module(module), name)()
        self._engine.load(path, {})
        self.shapes: dict[str, tuple[int, ...]] = {spec.name: spec.shape for spec in self._engine.inputs}
        self.types: dict[str, Any] = {spec.name: spec.dtype for spec in self._engine.inputs}

    def run(self, inputs: Arrays) -> Arrays:
        return dict(self._engine.run(inputs))

    def loss(self, loss_graph: Path, batches: Arrays) -> float:
        """Nats a target, over all batches."""
        sums = loss.evaluate(self._engine, loss_graph, batches, lambda progress: None)
        return sums.loss_sum / sums.weight_sum

    def samples_ms(self, sets: list[Arrays], seconds: float, slots: dict[str, int]) -> list[float]:
        """How long each run takes, with what it writes into its caches."""
        stacked = {name: np.stack([each[name] for each in sets]) for name in sets[0]}
        writes = [RowWrite(cache.removeprefix("past_"), cache, slot) for cache, slot in slots.items()]
        options = {"warmup_seconds": WARMUP_SECONDS, "seconds": seconds}
        return latency.measure(self._engine, stacked, options, writes=writes)["samples_ms"]

    def close(self) -> None:
        self._engine.close()
