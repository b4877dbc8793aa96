"""Does a build beside trainings give another engine than one that has the device alone?

    python -m benchmarks.performance.builds_beside --runtime tensorrt [--level 0] [--builds 3] [--seconds 200]
        [--out benchmarks/results/builds-beside.json]

Each graph is built several times alone, then as often beside a training that keeps the GPU busy, all in one kept
builder; then each engine is measured alone, in a process of its own. `spread_alone`: the largest median of the engines
that were built alone over the smallest; `beside_over_alone`: each median of those that were not, over the median of
those that were. Plans that are the same to the last byte are counted. Nothing is measured once the time is up. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.engines import ask, build_engine, engine_child, export_decoder, measure_fresh
from benchmarks.support.processes import ROOT, machine
from benchmarks.support.report import write
from workers.engine.tensorrt.plan_file import read_plan

SHAPE = {"vocabulary": 65, "batch": 8, "length": 256}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "2 of 256, float16": {"num_layers": 2, "hidden_size": 256, "attention.num_attention_heads": 4, "dtype": "float16"},
    "4 of 384, float32": {"num_layers": 4, "hidden_size": 384, "attention.num_attention_heads": 6, "dtype": "float32"},
    "6 of 384, float16": {"num_layers": 6, "hidden_size": 384, "attention.num_attention_heads": 6, "dtype": "float16"},
}
NEIGHBOUR = [sys.executable, "-m", "benchmarks.performance.training", "--seconds", "600", "--rounds", "1"]
NEIGHBOUR_STARTS_SECONDS = 15.0
ALONE, BESIDE = "alone", "beside a training"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--level", type=int, default=0)
    arguments.add_argument("--builds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=200)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    until = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        found = Builds(options.runtime, options.level, Path(folder)).compare(options.builds, until)
    report = {
        "benchmark": "builds beside a training",
        "command": "python -m benchmarks.performance.builds_beside " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "runtime": options.runtime,
        "level": options.level,
        "shape": SHAPE,
        "models": found,
    }
    write(report, options.out)
    print(json.dumps(report))
    return 0


class Builds:
    """Engines of the same graphs, built in both ways."""

    def __init__(self, runtime: str, level: int, folder: Path) -> None:
        self._runtime = runtime
        self._options = {} if runtime == "onnxruntime" else {"optimization_level": level}
        self._folder = folder
        self._builder = engine_child()

    def compare(self, builds: int, until: float) -> dict[str, Any]:
        """What each model's engines came to."""
        opset = ask(self._builder, "describe", runtime=self._runtime)["opset"]
        for number, model in enumerate(MODELS.values()):
            tokens = export_decoder(self._onnx(number), model, opset=opset, **SHAPE)
            np.savez(self._folder / f"{number}.npz", tokens=tokens)
        engines: dict[str, dict[str, list[Path]]] = {name: {ALONE: [], BESIDE: []} for name in MODELS}
        self._build_all(ALONE, builds, engines)
        with busy_neighbour(self._folder / "neighbour.log"):
            self._build_all(BESIDE, builds, engines)
        self._builder.close()
        return {
            name: self._measured(number, name, engines[name], until)
            for number, name in enumerate(MODELS)
            if time.monotonic() < until
        }

    def _onnx(self, number: int) -> Path:
        folder = self._folder / f"model{number}"
        folder.mkdir(exist_ok=True)
        return folder / "model.onnx"

    def _build_all(self, how: str, builds: int, engines: dict[str, dict[str, list[Path]]]) -> None:
        for build in range(builds):
            for number, name in enumerate(MODELS):
                path = self._folder / f"{number}-{how.split()[0]}-{build}.engine"
                started = time.monotonic()
                build_engine(self._builder, self._runtime, self._onnx(number), path, self._options)
                engines[name][how].append(path)
                print(f"  {name}, {how}: built in {time.monotonic() - started:.1f} s", flush=True)

    def _measured(self, number: int, name: str, engines: Mapping[str, list[Path]], until: float) -> dict[str, Any]:
        medians: dict[str, list[float]] = {ALONE: [], BESIDE: []}
        # In turn: a drift of the device is in both.
        for pair in zip(engines[ALONE], engines[BESIDE], strict=True):
            if time.monotonic() > until:
                break
            for how, path in zip((ALONE, BESIDE), pair, strict=True):
                measured = measure_fresh(self._runtime, path, self._folder / f"{number}.npz")
                medians[how].append(measured["latency_ms_p50"])
        plans = [self._digest(path) for paths in engines.values() for path in paths]
        found: dict[str, Any] = {"medians_ms": medians, "builds": len(plans), "different_plans": len(set(plans))}
        if medians[ALONE]:
            middle = statistics.median(medians[ALONE])
            found["spread_alone"] = round(max(medians[ALONE]) / min(medians[ALONE]), 4)
            found["beside_over_alone"] = [round(each / middle, 4) for each in medians[BESIDE]]
        print(f"{name}: {found}", flush=True)
        return found

    def _digest(self, path: Path) -> str:
        content = path.read_bytes() if self._runtime == "onnxruntime" else read_plan(path).content
        return hashlib.sha256(content).hexdigest()


@contextmanager
def busy_neighbour(log: Path) -> Generator[None]:
    """A training that keeps the GPU busy. Raises RuntimeError where it does not train."""
    with log.open("wb") as output, subprocess.Popen(NEIGHBOUR, cwd=ROOT, stdout=output, stderr=output) as neighbour:
        try:
            time.sleep(NEIGHBOUR_STARTS_SECONDS)
            if neighbour.poll() is not None:
                raise RuntimeError("the neighbour does not train:\n" + log.read_text()[-2000:])
            yield
        finally:
            neighbour.kill()


if __name__ == "__main__":
    sys.exit(main())
