"""A slot's real children with some functions replaced, which fail while a file says so.

The builder hangs, dies, lacks memory or disk, logs an error, writes half an engine, or an engine of another function.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.workers.engine_parent import ENGINE_PYTHON
from workers.processes.child import Child
from workers.processes.children import Children

ROOT = Path(__file__).parents[2]

ENGINES = {
    "onnxruntime": ("onnxruntime.engine", "OnnxRuntimeEngine"),
    "tensorrt": ("tensorrt.engine", "TensorRtEngine"),
}

ENGINE = """
import os, shutil, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from types import SimpleNamespace
from workers.engine import __main__ as child
from workers.engine.tensorrt import support
from workers.engine.{module} import {engine} as Real
from workers.engine.protocol import RequestError

fault = Path({fault!r})
build, load, make = Real._build, Real._load, Real.build

disk_usage = shutil.disk_usage

def faulty_build(self, onnx, engine, options, log):
    armed, shutil.disk_usage = fault.read_text(), disk_usage
    if armed == "hang":
        time.sleep(600)
    if armed == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if armed == "memory at build":
        raise MemoryError("the builder asked for 80 GiB")
    if armed == "disk at build":
        os.symlink("/dev/full", engine)
        shutil.disk_usage = lambda folder: SimpleNamespace(free=0)
    if armed == "every axis" and Real.runtime == "onnxruntime":
        onnx = reduced_over_every_axis(onnx)
    if armed == "every axis" and Real.runtime == "tensorrt":
        support.opset = lambda runtime, version: 18
    build(self, onnx, engine, options, log)
    if armed == "logged error":
        log.error("Error Code 4: a mask and a causal kind were both set")

# As TensorRT 8.6 does, whose parser reads axes as an attribute, where newer opsets have them as an input.
def reduced_over_every_axis(onnx):
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

def faulty_make(self, onnx, engine, options):
    built = make(self, onnx, engine, options)
    if fault.read_text() == "untrained" and engine.name == "final.engine":
        shutil.copyfile(engine.with_name("first.engine"), engine)
    if fault.read_text() == "truncated" and engine.name != "loss.engine":
        os.truncate(engine, built["engine_bytes"] // 2)
    return built

def faulty_load(self, engine, options):
    if fault.read_text() == "memory at load":
        raise RequestError("out_of_memory", engine.name + ": there is no memory for an execution context")
    return load(self, engine, options)

Real._build, Real._load, Real.build = faulty_build, faulty_load, faulty_make
child.main()
"""

MODEL = """
import os
from pathlib import Path
import torch
from workers.processes import torch_child
from workers.training import loop

fault = Path({fault!r})
step, export = loop.Training._step, torch_child.export

def faulty_step(self, batch, learning_rate):
    if fault.read_text() == "memory at training":
        torch.empty(1 << 50)
    step(self, batch, learning_rate)

def faulty_export(module, inputs, path, **options):
    if fault.read_text() == "disk at export":
        path.unlink(missing_ok=True)
        os.symlink("/dev/full", path)
    export(module, inputs, path, **options)

loop.Training._step, torch_child.export = faulty_step, faulty_export
torch_child.main()
"""


class FaultyChildren(Children):
    """Children that fail while `arm` says how."""

    def __init__(self, folder: Path, runtime: str) -> None:
        super().__init__(threads=1)
        self._fault = folder / "fault"
        self.arm("none")
        self._programs = {"engine": folder / "engine.py", "model": folder / "model.py"}
        module, engine = ENGINES[runtime]
        program = ENGINE.format(fault=str(self._fault), root=str(ROOT), module=module, engine=engine)
        self._programs["engine"].write_text(program)
        self._programs["model"].write_text(MODEL.format(fault=str(self._fault)))

    def arm(self, fault: str) -> None:
        self._fault.write_text(fault)

    def armed(self) -> str:
        return self._fault.read_text()

    def model(self) -> Child:
        if self._model is None or not self._model.alive():
            self.discard_model()
            self._model = self._start("model", "model", "--threads", "1")
        return self._model

    def _start_engine(self, name: str) -> Child:
        return self._start("engine", name)

    def _start(self, program: str, name: str, *arguments: str) -> Child:
        python = ENGINE_PYTHON if program == "engine" else sys.executable
        env = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_MODULE_LOADING": "LAZY"}
        return Child([python, str(self._programs[program]), *arguments], name=name, env=env)
