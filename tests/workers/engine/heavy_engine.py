"""Says what an engine weighs that takes 40 MiB to be loaded and 20 MiB to run, in a process of its own: `python -m`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workers.engine.base import TensorSpec
from workers.engine.machine import process_private_bytes
from workers.engine.memory import load_and_weigh


class Heavy:
    inputs = (TensorSpec("x", np.dtype(np.float32), (2, 3)),)

    def memory_by_device(self) -> tuple[int, ...]:
        return (process_private_bytes(),)

    def load(self, path: Path, options: Mapping[str, Any]) -> None:
        assert (str(path), options) == ("engine", {"threads": 1})
        self.weights = np.ones(40 << 20, np.uint8)

    def run(self, inputs: Mapping[str, np.ndarray]) -> None:
        assert inputs["x"].shape == (2, 3)
        assert inputs["x"].dtype == np.float32
        self.scratch = np.ones(20 << 20, np.uint8)


if __name__ == "__main__":
    sys.stdout.write(str(load_and_weigh(Heavy(), Path("engine"), {"threads": 1})))  # type: ignore[arg-type]
