"""Memory: what an engine adds to its process or device over its load and first run. The same for every runtime."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .base import Engine


def load_and_weigh(engine: Engine, path: Path, options: Mapping[str, object]) -> int:
    """Load the engine and run it once; return by how many bytes `engine.memory_by_device()` grew, on the device where
    that is most.

    Meaningful only in a process that did nothing with the runtime before: memory that an earlier engine gave back to
    the allocator would be used again and not be seen.
    """
    gc.collect()
    before = engine.memory_by_device()
    engine.load(path, options)
    engine.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in engine.inputs})
    gc.collect()
    return max(0, *(after - earlier for after, earlier in zip(engine.memory_by_device(), before, strict=True)))
