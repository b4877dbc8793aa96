"""Engines of a benchmark's own: export a model of the declared layers, build it, and hold it in a child.

`LAYERSWEEP_ENGINE_PYTHON` names the interpreter of the engine children, as for a worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layers.completion import complete
from workers.devices import device
from workers.devices.locks import turns_of
from workers.engine.__main__ import DEVICE_KINDS
from workers.engine.protocol import Verb
from workers.processes.child import Child

SECONDS = 600.0


def engine_child(environment: Mapping[str, str] | None = None) -> Child:
    """A fresh engine child."""
    python = os.environ.get("LAYERSWEEP_ENGINE_PYTHON", sys.executable)
    return Child(
        [python, "-m", "workers.engine"], name="engine", env={"CUDA_MODULE_LOADING": "LAZY", **(environment or {})}
    )


def ask(child: Child, verb: str, **arguments: Any) -> dict[str, Any]:
    return child.request(Verb[dict[str, Any]](verb), arguments, timeout_seconds=SECONDS)


def export_decoder(
    path: Path, model: Mapping[str, Any], *, vocabulary: int, batch: int, length: int, opset: int, seed: int = 0
) -> np.ndarray:
    """Write an untrained decoder to `path`, its loss graph to `loss.onnx` beside it; tokens [B, T] to run it on."""
    import torch

    from layers.export.onnx_export import cast_copy, export, export_loss
    from layers.modules.model import build

    completed = complete("causal_lm", model, {"vocabulary_size": vocabulary, "sequence_length": length})
    torch.manual_seed(seed)
    module = build(completed).eval()
    dtype = str(completed["dtype"])
    tokens_BT = torch.randint(0, vocabulary, (batch, length), dtype=torch.int32)
    export(cast_copy(module, dtype), (tokens_BT,), path, opset=opset, input_names=("tokens",))
    export_loss(path.with_name("loss.onnx"), logits_shape=(batch, length, vocabulary), opset=opset, dtype=dtype)
    return tokens_BT.numpy()


def build_engine(
    child: Child, runtime: str, onnx: Path, engine: Path, options: Mapping[str, int] | None = None
) -> dict[str, Any]:
    return ask(child, "build", runtime=runtime, onnx=str(onnx), engine=str(engine), options=dict(options or {}))


def load_options(runtime: str) -> dict[str, int]:
    """One thread on the CPU; a GPU takes none."""
    return {"threads": 1} if runtime == "onnxruntime" else {}


def device_turns(runtime: str) -> str:
    """The files by which what measures and trains on the runtime's device takes turns: workers there give way."""
    gpu = device.chosen(None if DEVICE_KINDS[runtime] == "gpu" else "cpu")
    return str(turns_of(str((device.gpu(gpu) if gpu else device.cpu(1))["uuid"])))


def measure_fresh(
    runtime: str, engine: Path, inputs: Path, options: Mapping[str, Any] | None = None, turns: str | None = None
) -> dict[str, Any]:
    """Load and measure in a process of its own, when it is its turn. `turns`: of another device than the runtime's."""
    child, taken = engine_child(), turns or device_turns(runtime)
    try:
        loaded = ask(child, "load", runtime=runtime, engine=str(engine), options=load_options(runtime), turns=taken)
        arguments = {"inputs": str(inputs), "options": dict(options or {}), "turns": taken}
        return {**loaded, **ask(child, "measure", **arguments)}
    finally:
        child.close()
