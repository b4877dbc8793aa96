"""Is an engine as fast beside busy slots as alone?

    python -m benchmarks.performance.beside_slots TEXT [--sweep examples/h200.yaml] [--runtime tensorrt] [--slots auto]
        [--rounds 2] [--engines 6] [--out benchmarks/results/beside_slots.json]

Engines of several sizes are built once. Each round measures each of them twice while nothing else uses the device, and
once while the slots of a worker train, build, measure and evaluate a sweep on it; each time in a fresh process, and in
turn. `alone` are the ratios of the two measurements alone, `beside` those of the one beside slots over their mean. Of
both the 95th percentile of |ratio - 1| with its bootstrap interval, and the largest. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.end_to_end.h200 import on_runtime
from benchmarks.performance.engines import ask, build_engine, engine_child, export_decoder, measure_fresh
from benchmarks.support.processes import machine, running_service, running_worker
from benchmarks.support.report import write
from layersweep import Client

SIZES = ((1, 128), (1, 256), (2, 128), (2, 256), (2, 384), (4, 256))
SHAPE = {"vocabulary": 256, "batch": 8, "length": 256}
MEASURE = {"warmup_seconds": 0.2, "seconds": 3.0, "min_runs": 100}
RESAMPLES = 2000


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--sweep", type=Path, default=Path("examples/h200.yaml"))
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--slots", default="auto")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--engines", type=int, default=len(SIZES))
    arguments.add_argument("--out", type=Path, default=Path("benchmarks/results/beside_slots.json"))
    options = arguments.parse_args()

    document = on_runtime(yaml.safe_load(options.sweep.read_text()), options.runtime)
    document |= {"search": {"sampler": "random", "seed": 0, "reuse": False}, "budget": {"trials": 1000, "parallel": 64}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engines = built(options.runtime, folder, options.engines)
        rounds: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            first, second = (measured(options.runtime, engines) for _ in range(2))
            with busy_slots(document, options.text, options.slots):
                beside = measured(options.runtime, engines)
            rounds.append({"first": first, "second": second, "beside": beside})
            print(json.dumps(rounds[-1]), flush=True)
    report = {
        "benchmark": "beside_slots",
        "command": "python -m benchmarks.performance.beside_slots "
        + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT"),
        "machine": machine(),
        "shape": SHAPE,
        "summary": summary(rounds),
        "rounds": rounds,
    }
    write(report, options.out)
    print(json.dumps(report["summary"]))
    return 0


def built(runtime: str, folder: Path, count: int) -> dict[str, tuple[Path, Path]]:
    """Size -> engine and its inputs."""
    builder = engine_child()
    opset = ask(builder, "describe", runtime=runtime)["opset"]
    found: dict[str, tuple[Path, Path]] = {}
    for layers, width in SIZES[:count]:
        onnx, engine, inputs = (folder / f"{layers}-{width}.{ending}" for ending in ("onnx", "engine", "npz"))
        model = {"num_layers": layers, "hidden_size": width, "attention.num_attention_heads": 4}
        np.savez(inputs, tokens=export_decoder(onnx, model, opset=opset, **SHAPE))
        build_engine(builder, runtime, onnx, engine)
        found[f"{layers} of {width}"] = engine, inputs
        print(f"built {layers} of {width}", flush=True)
    builder.close()
    return found


def measured(runtime: str, engines: Mapping[str, tuple[Path, Path]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for size, (engine, inputs) in engines.items():
        answer = measure_fresh(runtime, engine, inputs, MEASURE)
        kept = {name: answer[name] for name in ("latency_ms_p50", "latency_ms_p99", "latency_cv")}
        found[size] = kept | {"waited_seconds": answer["environment"]["waited_seconds"]}
    return found


@contextmanager
def busy_slots(document: Mapping[str, Any], text: Path, slots: str) -> Iterator[None]:
    """A worker on the device whose slots are all at work."""
    with tempfile.TemporaryDirectory() as name, running_service(Path(name)) as url:
        client = Client(url)
        client.add_dataset(document["dataset"], text, task=document["task"], tokenizer="char", validation=0.1)
        sweep = client.submit(dict(document))
        with running_worker(url, Path(name), options=["--slots", slots]):
            deadline = time.monotonic() + 240
            while not any(trial["phase"] == "train" for trial in sweep.trials()):
                if time.monotonic() > deadline:
                    raise RuntimeError("nothing is trained:\n" + (Path(name) / "worker.log").read_text()[-3000:])
                time.sleep(0.5)
            yield
            print(f"  beside it: {sweep.refresh().record['progress']}", flush=True)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    alone: list[float] = []
    beside: list[float] = []
    for each in rounds:
        for size, first in each["first"].items():
            of_first, of_second, of_beside = (
                each[name][size]["latency_ms_p50"] for name in ("first", "second", "beside")
            )
            alone.append(of_second / first["latency_ms_p50"])
            beside.append(of_beside / ((of_first + of_second) / 2))
    return {
        "engines": len(rounds[0]["first"]),
        "rounds": len(rounds),
        "alone": spread(alone),
        "beside": spread(beside),
        "waited_seconds": sum(each["waited_seconds"] for one in rounds for each in one["beside"].values()),
    }


def spread(ratios: list[float]) -> dict[str, Any]:
    off = np.abs(np.asarray(ratios) - 1)
    draws = np.random.default_rng(0).choice(off, (RESAMPLES, len(off)))
    interval = np.percentile(np.percentile(draws, 95, axis=1), [2.5, 97.5])
    return {
        "ratios": [round(ratio, 4) for ratio in ratios],
        "p95_off": round(float(np.percentile(off, 95)), 5),
        "p95_off_interval": [round(float(bound), 5) for bound in interval],
        "largest_off": round(float(off.max()), 5),
    }


if __name__ == "__main__":
    sys.exit(main())
