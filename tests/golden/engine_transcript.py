"""What a worker and its engine child say to each other on ONNX Runtime: every line, measured values as their types."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.workers import graphs
from workers.processes.child import Child, ChildError

FOLDER = "$FOLDER"
"""Stands for the folder of the files."""

_LISTENER = Path(__file__).with_name("listener.py")
_QUICK = {"warmup_seconds": 0.01, "seconds": 0.02, "min_runs": 10}
_ONNX_RUNTIME = {"runtime": "onnxruntime"}


def lines(folder: Path) -> list[dict[str, Any]]:
    """What went from parent to child (`asked`) and back (`answered`) while an engine was built, measured and scored."""
    transcript = folder / "transcript"
    child = Child([sys.executable, str(_LISTENER), str(transcript)], name="engine")
    try:
        for verb, arguments in _requests(folder):
            with contextlib.suppress(ChildError):
                child.request(verb, arguments, timeout_seconds=60)
    finally:
        child.close()
    return [_normalized(line.replace(str(folder), FOLDER)) for line in transcript.read_text().splitlines()]


def _requests(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A trial's requests, and some that are refused; the files that they name are made."""
    model = graphs.LanguageModel.make()
    model.save(folder / "model.onnx")
    shape = (model.batch, model.tokens)
    graphs.save_loss(folder / "loss.onnx", (*shape, model.vocabulary))
    tokens = model.inputs()
    np.savez(folder / "inputs.npz", tokens=tokens)
    batches: dict[str, Any] = {
        "tokens": tokens[None],
        "targets": tokens[None],
        "weights": np.ones((1, *shape), np.float32),
    }
    np.savez(folder / "batches.npz", **batches)

    def path(name: str) -> str:
        return str(folder / name)

    built = {**_ONNX_RUNTIME, "onnx": path("model.onnx"), "engine": path("model.engine"), "options": {}}
    run = {"inputs": path("inputs.npz"), "outputs": path("outputs.npz")}
    measure = {"inputs": path("inputs.npz"), "options": _QUICK}
    loss = {"loss_graph": path("loss.onnx"), "batches": path("batches.npz")}
    yield "describe", _ONNX_RUNTIME
    yield "run", run
    yield "build", {**built, "timings": None}
    yield "load", {**_ONNX_RUNTIME, "engine": path("model.engine"), "options": {}}
    yield "measure", measure
    yield "measure", {**measure, "turns": path("device")}
    yield "run", run
    yield "loss", loss
    yield "loss", {**loss, "batches": path("inputs.npz")}
    yield "close", {}
    yield "build", {**built, "onnx": path("inputs.npz")}
    yield "describe", {"runtime": "abacus"}
    yield "fly", {}
    yield "measure", {**measure, "load": {**_ONNX_RUNTIME, "engine": path("model.engine"), "options": {}}}
    yield "measure", {**measure, "load": "model.engine"}


def _normalized(line: str) -> dict[str, Any]:
    direction, message = line[0], json.loads(line[2:])
    if direction == ">":
        return {"asked": message}
    if "progress" in message:
        message["progress"] = kind_of(message["progress"])
    if "result" in message:
        result = message["result"] = kind_of(message["result"])
        measured = result.get("measured", result)
        if "environment" in measured:
            # Which of these a machine can tell differs; that each is there does not.
            measured["environment"] = sorted(measured["environment"])
    if "error" in message and message["error"]["kind"] == "build":
        # The library's words.
        message["error"]["message"] = "text"
    return {"answered": message}


def kind_of(value: Any) -> Any:
    """A JSON value with its numbers and texts as the names of their types, and a list as its first item's."""
    if isinstance(value, dict):
        return {name: kind_of(item) for name, item in value.items()}
    if isinstance(value, list):
        return [kind_of(item) for item in value[:1]]
    names: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null"}
    return names[type(value)]
