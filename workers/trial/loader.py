"""Runs a trial's downloaded artifacts: the latency of its engine, and the validation loss that the sweep reported.

Stands alone: numpy and the engine's runtime, no service, no PyTorch. It lies beside the artifacts as `run.py`.

    python run.py [FOLDER]

prints one line of JSON: what is measured here, and what the sweep reported. Without FOLDER it runs what it lies beside.
If a package is missing it says which.
An engine of TensorRT runs by `workers.engine` of Layersweep's checkout, which must be on PYTHONPATH then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ImportError:
    sys.exit(
        f"run.py needs NumPy and the engine's runtime, and {sys.executable} has no NumPy. Install them there "
        "(python -m pip install numpy onnxruntime), or run it with a worker's Python: .venv/bin/python of its checkout"
    )

WARMUP_SECONDS = 0.2
MEASURE_SECONDS = 3.0
INPUT_SETS = 4
NOT_INPUTS = ("targets", "weights")


def main() -> None:
    parser = argparse.ArgumentParser(prog="run.py", description="Measure and score the engine of a downloaded trial.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).resolve().parent, help="left out: where run.py lies"
    )
    folder = parser.parse_args().folder
    if not (folder / "configuration.json").is_file():
        parser.error(f"{folder} is no folder of a downloaded trial: it has no configuration.json")
    described = json.loads((folder / "configuration.json").read_text())
    if found := missing_runtime(described):
        sys.exit(found)
    with np.load(folder / "validation.npz", allow_pickle=False) as arrays:
        batches = {name: arrays[name] for name in arrays.files}
    run = run_onnxruntime if described["runtime"] == "onnxruntime" else run_by_checkout
    found = run(folder, described, batches)
    reported = {name: described["metrics"].get(name) for name in ("latency_ms_p50", "validation_loss")}
    sys.stdout.write(json.dumps({**found, "reported": reported}) + "\n")


def missing_runtime(described: dict[str, Any]) -> str | None:
    """What this Python lacks to run the engine, and how to get it; None if it lacks nothing."""
    runtime, version = described["runtime"], described["environment"].get("runtime_version")
    if runtime != "onnxruntime":
        advice = "put Layersweep's checkout on PYTHONPATH and run it with the worker's Python, .venv/bin/python"
        return None if find_spec("workers") else f"an engine of {runtime} runs by Layersweep's checkout: {advice}"
    if find_spec(runtime):
        return None
    package = f"{runtime}=={version}" if version else runtime
    return f"{sys.executable} has no {runtime}: {sys.executable} -m pip install {package}"


def run_onnxruntime(folder: Path, described: dict[str, Any], batches: dict[str, np.ndarray]) -> dict[str, Any]:
    """As the worker ran it: optimized when it was built, so loaded with optimization off; threads that sleep."""
    import onnxruntime

    def session(path: Path, optimize: bool) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = described["environment"].get("intra_op_threads", 1)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    engine, loss_graph = session(folder / "model.engine", False), session(folder / "loss.engine", True)
    inputs = {value.name: batches[value.name if value.name in batches else "inputs"] for value in engine.get_inputs()}
    (logits_name,) = [value.name for value in engine.get_outputs()]
    sums = dict.fromkeys(("loss_sum", "weight_sum", "correct"), 0.0)
    for index in range(len(batches["targets"])):
        (logits,) = engine.run([logits_name], {name: array[index] for name, array in inputs.items()})
        given = {"logits": logits, "targets": batches["targets"][index], "weights": batches["weights"][index]}
        for name, value in zip(sums, loss_graph.run(list(sums), given), strict=True):
            sums[name] += float(value)

    bindings = []
    for index in range(min(INPUT_SETS, len(batches["targets"]))):
        binding = engine.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array[index]))
        for value in engine.get_outputs():
            room = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32, "cpu")
            binding.bind_ortvalue_output(value.name, room)
        bindings.append(binding)
    samples_ms: list[float] = []
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < WARMUP_SECONDS + MEASURE_SECONDS:
        binding = bindings[len(samples_ms) % len(bindings)]
        began = time.perf_counter_ns()
        engine.run_with_iobinding(binding)
        taken_ms = (time.perf_counter_ns() - began) / 1e6
        samples_ms += [taken_ms] if elapsed >= WARMUP_SECONDS else []
    return {
        "validation_loss": sums["loss_sum"] / sums["weight_sum"],
        "latency_ms_p50": float(np.percentile(samples_ms, 50)),
        "runs": len(samples_ms),
    }


def run_by_checkout(folder: Path, described: dict[str, Any], batches: dict[str, np.ndarray]) -> dict[str, Any]:
    """With the code that measured it in the sweep."""
    from importlib import import_module

    runtimes = import_module("workers.engine.__main__").RUNTIMES
    measure = import_module("workers.engine.latency").measure
    evaluate = import_module("workers.engine.loss").evaluate
    module, name = runtimes[described["runtime"]]
    engine = getattr(import_module(module), name)()
    engine.load(folder / "model.engine", {})
    sums = evaluate(engine, folder / "loss.engine", batches, lambda progress: None)
    inputs = {name: array[:INPUT_SETS] for name, array in batches.items() if name not in NOT_INPUTS}
    if "inputs" in inputs:
        inputs = {engine.inputs[0].name: inputs["inputs"]}
    measured = measure(engine, inputs, {"warmup_seconds": WARMUP_SECONDS, "seconds": MEASURE_SECONDS})
    engine.close()
    return {
        "validation_loss": sums.loss_sum / sums.weight_sum,
        "latency_ms_p50": measured["latency_ms_p50"],
        "runs": measured["runs"],
    }


if __name__ == "__main__":
    main()
