"""The engine child with some of the engine's functions replaced: they fail while the file $FAULT_FILE says so.

Run by its path, by the interpreter of the engine child: torch-free, as that is. $FAULTY_RUNTIME names the runtime.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workers.engine import __main__ as child
from workers.engine.base import Engine, TurnKind
from workers.engine.protocol import RequestError
from workers.engine.tensorrt import support
from workers.engine.turns.arbitration import Turn

ENGINES = {"onnxruntime": "OnnxRuntimeEngine", "tensorrt": "TensorRtEngine"}

_RUNTIME = os.environ["FAULTY_RUNTIME"]
_Real: Any = getattr(import_module(f"workers.engine.{_RUNTIME}.engine"), ENGINES[_RUNTIME])
_fault = Path(os.environ["FAULT_FILE"])
_build, _load, _make, _timed_run = _Real._build, _Real._load, _Real.build, _Real.timed_run
_load_turn = _Real.load_turn
_take = Turn.take
_disk_usage = shutil.disk_usage


def faulty_build(self: Engine, onnx: Path, engine: Path, options: Mapping[str, Any], log: Any) -> None:
    fault, shutil.disk_usage = _fault.read_text(), _disk_usage
    if fault == "hang":
        time.sleep(600)
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "memory at build":
        raise MemoryError("the builder asked for 80 GiB")
    if fault == "disk at build":
        engine.symlink_to("/dev/full")
        shutil.disk_usage = lambda folder: SimpleNamespace(free=0)  # type: ignore[assignment]
    if fault == "every axis" and _RUNTIME == "onnxruntime":
        onnx = reduced_over_every_axis(onnx)
    if fault == "every axis" and _RUNTIME == "tensorrt":
        support.opset = lambda runtime, version: 18
    _build(self, onnx, engine, options, log)
    if fault == "logged error":
        log.error("Error Code 4: a mask and a causal kind were both set")


def reduced_over_every_axis(onnx: Path) -> Path:
    """As TensorRT 8.6 does, whose parser reads axes as an attribute, where newer opsets have them as an input."""
    import onnx as graphs

    model = graphs.load(onnx)
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            del node.input[1:]
            kept = [each for each in node.attribute if each.name != "axes"]
            del node.attribute[:]
            node.attribute.extend(kept)
    wrong = onnx.with_name("wrong.onnx")
    graphs.save(model, wrong)
    return wrong


def faulty_make(self: Engine, onnx: Path, engine: Path, options: Mapping[str, Any]) -> Any:
    built = _make(self, onnx, engine, options)
    fault = _fault.read_text()
    if fault == "untrained" and engine.name == "final.engine":
        shutil.copyfile(engine.with_name("first.engine"), engine)
    if fault == "truncated" and engine.name != "loss.engine":
        os.truncate(engine, built["engine_bytes"] // 2)
    return built


def faulty_load(self: Engine, engine: Path, options: Mapping[str, Any]) -> Any:
    if _fault.read_text() == "memory at load":
        raise RequestError("out_of_memory", engine.name + ": there is no memory for an execution context")
    return _load(self, engine, options)


def faulty_load_turn(self: Engine) -> TurnKind | None:
    """Alone, as of engines that are weighed by the device's own memory; a killed one is to have the device."""
    return "alone" if _fault.read_text() in ("weighed by the device", "killed while it is measured") else _load_turn


def faulty_take(self: Turn) -> float:
    if _fault.read_text() == "memory in a wait":
        self._on_wait()
        raise MemoryError("no memory for another thread")
    return _take(self)


def faulty_timed_run(self: Engine, prepared: Any) -> float:
    if _fault.read_text() == "killed while it is measured":
        os.kill(os.getpid(), signal.SIGKILL)
    return _timed_run(self, prepared)


if __name__ == "__main__":
    _Real.load_turn, _Real.timed_run = property(faulty_load_turn), faulty_timed_run
    Turn.take = faulty_take
    _Real._build, _Real._load, _Real.build = faulty_build, faulty_load, faulty_make
    child.main()
