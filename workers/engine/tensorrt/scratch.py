"""The scratch memory of execution contexts: each its own, or one in common of contexts that never run at once."""

from __future__ import annotations

from typing import Any

from . import cuda


def scratch_bytes(engine: Any) -> int:
    """What a context of the engine needs beside weights, inputs and outputs."""
    size = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else None
    return int(engine.device_memory_size if size is None else size)


def context_without_scratch(trt: Any, engine: Any) -> Any:
    """A context that must be lent scratch memory before it runs; None where the library makes none."""
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is None:  # before TensorRT 10
        return engine.create_execution_context_without_device_memory()
    return engine.create_execution_context(strategies.USER_MANAGED)


def lend_scratch(context: Any, scratch: cuda.Buffer) -> None:
    """Let the context compute in this memory, which its owner keeps. cuMemAlloc aligns it as the library asks."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(scratch.address, scratch.nbytes)
    else:
        context.device_memory = scratch.address
