"""The walk over every layer and every enumerated value through a real builder and, where it runs, against PyTorch.

Each combination of tests/layers/combinations.py in each precision is exported in the opset that the runtime reads,
built, and, on a device that runs it, compared with PyTorch in float32 on random tokens. A precision that the capability
check refuses is refused before the builder.

    python -m benchmarks.conformance.walk --runtime tensorrt [--precisions float32 float16] [--level 3] [--processes 8]
        [--compute-capability 8.9] [--only PART_OF_AN_ID ...] [--out benchmarks/results/walk.json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.capabilities import unsupported
from layers.export.opset import OpsetError
from tests.layers.combinations import Combination, combinations, drawn, lively
from workers.processes.child import Child, ChildError
from workers.trial import parity

TOLERANCES = {"float32": 1e-5, "tf32": 5e-3, "float16": 5e-3, "bfloat16": 5e-2}
"""Largest parity error of a right engine of these small models."""

BUILD_SECONDS = 300


class Walker:
    """Builds and runs combinations, in a process of its own with one kept engine child."""

    def __init__(self, runtime: str, options: dict[str, int]) -> None:
        python = os.environ.get("LAYERSWEEP_ENGINE_PYTHON", sys.executable)
        self._child = Child([python, "-m", "workers.engine"], name="engine")
        self._runtime = runtime
        self._options = options
        self.capabilities = self._child.request("describe", {"runtime": runtime}, timeout_seconds=120)

    def walk(self, combination: Combination, precision: str) -> dict[str, Any]:
        """How one combination went: `outcome` is refused, failed, wrong, built or right."""
        result: dict[str, Any] = {"id": combination.id, "precision": precision}
        model = combination.completed(precision)
        capabilities = {**self.capabilities, "device_memory_bytes": self.capabilities["device_memory_bytes"] or 1 << 40}
        if lack := unsupported(model, capabilities):
            return {**result, "outcome": "refused", "reason": lack}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                inputs, expected = _exported(combination, model, folder / "model.onnx", capabilities["opset"])
                built = self._ask(
                    "build",
                    onnx=str(folder / "model.onnx"),
                    engine=str(folder / "model.engine"),
                    options={**self._options, "tf32": int(precision == "tf32")},
                )
                result["build_seconds"] = round(built["build_seconds"], 3)
                if self.capabilities["build_only"]:
                    return {**result, "outcome": "built"}
                self._ask("load", engine=str(folder / "model.engine"))
                np.savez(folder / "in.npz", **inputs)
                self._ask("run", inputs=str(folder / "in.npz"), outputs=str(folder / "out.npz"))
                self._ask("close")
            except OpsetError as error:
                return {**result, "outcome": "failed", "reason": f"export: {error}"}
            except ChildError as error:
                self._child.request("close", timeout_seconds=60)
                return {**result, "outcome": "failed", "reason": f"{error.kind}: {error.message}"}
            with np.load(folder / "out.npz") as outputs:
                found = parity.compare(outputs[combination.signature().outputs[0].name], expected)
        right = found.error <= TOLERANCES[precision]
        return {**result, "outcome": "right" if right else "wrong", "error": found.error, "worst": found.worst}

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return self._child.request(verb, {"runtime": self._runtime, **arguments}, timeout_seconds=BUILD_SECONDS)


def _exported(
    combination: Combination, model: dict[str, Any], path: Path, opset: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Write the graph of a lively module; the inputs to run it on and PyTorch's output in float32."""
    import torch

    from layers.export.onnx_export import cast_copy, export

    torch.set_num_threads(1)
    module, signature = lively(model), combination.signature()
    inputs = tuple(drawn(spec) for spec in signature.inputs)
    with torch.no_grad():
        expected = module(*inputs).float().numpy()
    names = [spec.name for spec in signature.inputs]
    outputs = [spec.name for spec in signature.outputs]
    export(cast_copy(module, model["dtype"]), inputs, path, opset=opset, input_names=names, output_names=outputs)
    return {name: value.numpy() for name, value in zip(names, inputs, strict=True)}, expected


_walker: Walker | None = None


def _start(runtime: str, options: dict[str, int]) -> None:
    global _walker
    _walker = Walker(runtime, options)


def _work(job: tuple[Combination, str]) -> dict[str, Any]:
    assert _walker is not None
    return _walker.walk(*job)


def walk(
    runtime: str, jobs: list[tuple[Combination, str]], options: dict[str, int], processes: int
) -> list[dict[str, Any]]:
    """Walk the jobs in so many processes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (runtime, options)) as pool:
        return pool.map(_work, jobs, chunksize=1)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--precisions", nargs="+", default=["float32", "float16"])
    arguments.add_argument("--level", type=int, default=3)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--compute-capability")
    arguments.add_argument(
        "--every", type=int, default=1, help="walk every n-th combination, each precision from the next"
    )
    arguments.add_argument(
        "--only", nargs="+", default=[""], help="walk the combinations alone whose id has one of these in it"
    )
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    build = {"optimization_level": options.level}
    if options.compute_capability:
        build["compute_capability"] = round(10 * float(options.compute_capability))
    chosen = [each for each in combinations() if any(part in each.id for part in options.only)]
    jobs = [
        (each, precision)
        for index, precision in enumerate(options.precisions)
        for each in chosen[index % options.every :: options.every]
    ]
    started = time.monotonic()
    results = walk(options.runtime, jobs, build, options.processes)
    seconds = time.monotonic() - started
    for result in results:
        if result["outcome"] in ("failed", "wrong"):
            print(json.dumps(result))
    summary = {
        precision: {
            **Counter(each["outcome"] for each in results if each["precision"] == precision),
            "largest_error": max(
                (e["error"] for e in results if e["precision"] == precision and "error" in e), default=None
            ),
        }
        for precision in options.precisions
    }
    report = {
        "benchmark": "walk",
        "command": "python -m benchmarks.conformance.walk " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": Walker(options.runtime, build).capabilities,
        "tolerances": TOLERANCES,
        "seconds": round(seconds, 1),
        "summary": summary,
        "results": results,
    }
    write(report, options.out)
    print(json.dumps({"combinations": len(jobs), "seconds": round(seconds, 1), **summary}))
    return int(any(each["outcome"] in ("failed", "wrong") for each in results))


if __name__ == "__main__":
    sys.exit(main())
