"""Are latencies true while builds are stopped for them, and are the engines of such builds as fast as others?

    python -m benchmarks.performance.stopped_builds --runtime tensorrt [--models 2] [--rounds 3]
        [--out benchmarks/results/stopped-builds.json]

Engines are built at level 0 and measured alone, twice, each time in a fresh process. Then two builders build the same
graphs again and again, and are stopped whenever an engine is measured (workers/engine/turns/pausing.py). At last the
engines that they built are measured alone. All medians and 99th percentiles; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.builds_beside import MODELS, SHAPE
from benchmarks.performance.engines import ask, build_engine, device_turns, engine_child, export_decoder, measure_fresh
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from workers.engine.verbs import BUILD

BUILDERS = 2
Measured = Mapping[str, float]


class Stopped:
    """Builders that build all graphs in turn, and how often they were stopped."""

    def __init__(self, runtime: str, folder: Path, names: list[str], options: Mapping[str, int]) -> None:
        self._runtime, self._folder, self._names, self._options = runtime, folder, names, options
        self._over = threading.Event()
        self._warm = threading.Barrier(BUILDERS + 1)
        self.builds, self.stops, self.stopped_seconds = 0, 0, 0.0

    @contextmanager
    def building(self) -> Generator[None]:
        threads = [threading.Thread(target=self._build, args=(number,)) for number in range(BUILDERS)]
        for thread in threads:
            thread.start()
        self._warm.wait()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _build(self, builder: int) -> None:
        child, turns = engine_child(), device_turns(self._runtime)
        try:
            for turn in range(1_000_000):
                name = self._names[(turn + builder) % len(self._names)]
                request = {
                    "runtime": self._runtime,
                    "onnx": str(self._folder / name / "model.onnx"),
                    "engine": str(self._folder / f"{name}-{builder}.engine"),
                    "options": dict(self._options),
                    "turns": turns,
                }
                child.request(BUILD, request, timeout_seconds=600, on_progress=self._heard)
                self.builds += 1
                if turn == 0:
                    self._warm.wait()
                if self._over.is_set() and turn + 1 >= len(self._names):
                    return
        finally:
            # One that failed before it had built would be waited for.
            self._warm.abort()
            child.close()

    def _heard(self, progress: dict[str, Any]) -> None:
        if seconds := progress.get("waited_seconds"):
            self.stops += 1
            self.stopped_seconds += seconds


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--models", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    runtime = options.runtime
    level = {"optimization_level": 0} if runtime == "tensorrt" else {}
    names = list(MODELS)[: options.models]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = engine_child()
        opset = ask(child, "describe", runtime=runtime)["opset"]
        for model in names:
            (folder / model).mkdir()
            tokens = export_decoder(folder / model / "model.onnx", MODELS[model], opset=opset, **SHAPE)
            np.savez(folder / f"{model}.npz", tokens=tokens)
            build_engine(child, runtime, folder / model / "model.onnx", folder / f"{model}.engine", level)
        child.close()

        def measured(model: str, engine: str) -> Measured:
            found = measure_fresh(runtime, folder / engine, folder / f"{model}.npz")
            kept = {key: round(found[key], 5) for key in ("latency_ms_p50", "latency_ms_p99")}
            print(json.dumps({"model": model, "engine": engine, **kept}), flush=True)
            return kept

        alone = {model: [measured(model, f"{model}.engine") for _ in range(2)] for model in names}
        stopped = Stopped(runtime, folder, names, level)
        with stopped.building():
            beside = {model: [measured(model, f"{model}.engine") for _ in range(options.rounds)] for model in names}
        built = {
            model: [measured(model, f"{model}-{builder}.engine") for builder in range(BUILDERS)] for model in names
        }
    report = {
        "benchmark": "stopped builds",
        "command": "python -m benchmarks.performance.stopped_builds " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "shape": SHAPE,
        "builds": stopped.builds,
        "stops": stopped.stops,
        "stopped_seconds": round(stopped.stopped_seconds, 2),
        "alone": alone,
        "while builds were stopped": beside,
        "engines whose builds were stopped": built,
    }
    write(report, options.out)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
