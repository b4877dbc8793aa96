"""Can a latency be trusted? One engine in fresh processes, against an independent loop, and a ranking repeated.

    python -m benchmarks.performance.repeatability --runtime tensorrt [--out benchmarks/results/repeatability.json]
        [--layers 6 --hidden-size 384 --heads 6 --length 256 --repetitions 0]

1. spread: one float16 engine (2 layers, width 256, 8×128, or what is given) measured in 10 fresh processes; max/min of
   the medians, under the CUDA graph and by plain enqueue.
2. independent: benchmarks/performance/trtexec_loop.py on the same engine, three times, in turns with ours.
3. ranking: 8 engines whose latencies lie within 20 %, measured five times over: is their order the same? They are
   those of 16 that a measurement before found furthest apart: what no measurement can tell apart has no order.
   `--repetitions 0` leaves it out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.engines import (
    ask,
    build_engine,
    device_turns,
    engine_child,
    export_decoder,
    load_options,
    measure_fresh,
)
from benchmarks.support.processes import ROOT, machine
from benchmarks.support.report import write

LEVEL = {"optimization_level": 1}
SHAPE = {"vocabulary": 256, "batch": 8, "length": 128}
WIDTHS = range(1024, 3712, 168)
"""Of the feed-forward layer: what the engines differ in that may be ranked."""

RANKED, RANKED_WITHIN = 8, 0.2

KEPT = (
    "latency_ms_p50",
    "latency_ms_p99",
    "latency_cv",
    "latency_ms_enqueue_p50",
    "enqueue_host_ms_p50",
    "runs",
    "flagged",
)


def brief(measured: dict[str, Any]) -> dict[str, Any]:
    environment = measured["environment"]
    kept = {name: measured[name] for name in KEPT if name in measured}
    return {
        **kept,
        **{name: environment.get(name) for name in ("stopped_by", "measurements", "device_before", "device_after")},
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--processes", type=int, default=10)
    arguments.add_argument("--repetitions", type=int, default=5)
    arguments.add_argument("--builders", type=int, default=2)
    arguments.add_argument("--layers", type=int, default=2)
    arguments.add_argument("--hidden-size", type=int, default=256)
    arguments.add_argument("--heads", type=int, default=4)
    arguments.add_argument("--length", type=int, default=128)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    runtime = options.runtime
    base = {
        "num_layers": options.layers,
        "hidden_size": options.hidden_size,
        "attention.num_attention_heads": options.heads,
        "dtype": "float32" if runtime == "onnxruntime" else "float16",
    }
    shape = SHAPE | {"length": options.length}
    widths = WIDTHS if options.repetitions else ()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = engine_child()
        target = ask(builder, "describe", runtime=runtime)
        builder.close()
        models = {"base": base, **{f"w{width}": {**base, "mlp.ffn_hidden_size": width} for width in widths}}
        jobs = [(runtime, folder, label, model, shape, target["opset"]) for label, model in models.items()]
        with multiprocessing.get_context("spawn").Pool(options.builders) as pool:
            pool.starmap(made, jobs, chunksize=1)
        engine, inputs = folder / "base.engine", folder / "base.npz"

        fresh: list[dict[str, Any]] = []
        independent: list[dict[str, Any]] = []
        for turn in range(options.processes):
            fresh.append(brief(measure_fresh(runtime, engine, inputs)))
            if turn < 3 and runtime == "tensorrt":
                independent += [loop(engine, inputs), loop(engine, inputs, "--plain")]
            print(json.dumps({"process": turn, **{k: fresh[-1].get(k) for k in KEPT}}), flush=True)

        candidates = ranking_ms(runtime, folder, widths) if widths else {}
        ranked = furthest_apart(candidates) if widths else []
        orders: list[list[int]] = []
        medians: list[dict[int, float]] = []
        for _ in range(options.repetitions):
            found = ranking_ms(runtime, folder, ranked)
            medians.append(found)
            orders.append(sorted(found, key=lambda width: found[width]))
            print(json.dumps(found), flush=True)

    summary: dict[str, Any] = {"spread_graph": spread([each["latency_ms_p50"] for each in fresh])}
    if all("latency_ms_enqueue_p50" in each for each in fresh):
        summary["spread_enqueue"] = spread([each["latency_ms_enqueue_p50"] for each in fresh])
    if independent:
        theirs = float(np.median([each["median_ms"] for each in independent if each["graph"]]))
        ours = float(np.median([each["latency_ms_p50"] for each in fresh[:3]]))
        summary |= {"ours_ms": ours, "independent_ms": theirs, "off": ours / theirs - 1}
    if medians:
        first = medians[0]
        summary |= {
            "ranked": len(ranked),
            "ranked_within": max(first.values()) / min(first.values()) - 1,
            "least_step": least_step(list(first.values())),
            "same_order": sum(order == orders[0] for order in orders),
            "repetitions": len(orders),
        }
    report = {
        "benchmark": "repeatability",
        "command": "python -m benchmarks.performance.repeatability " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "model": base,
        "shape": shape,
        "summary": summary,
        "fresh": fresh,
        "independent": independent,
        "candidates_ms": candidates,
        "ranking_ms": medians,
    }
    write(report, options.out)
    print(json.dumps(summary))
    return 0


def made(runtime: str, folder: Path, label: str, model: dict[str, Any], shape: dict[str, int], opset: int) -> None:
    """Export and build one engine, in a process of its own."""
    tokens = export_decoder(folder / f"{label}.onnx", model, opset=opset, **shape)
    np.savez(folder / f"{label}.npz", tokens=tokens)
    child = engine_child()
    options = LEVEL if runtime == "tensorrt" else {}
    build_engine(child, runtime, folder / f"{label}.onnx", folder / f"{label}.engine", options)
    child.close()


def furthest_apart(candidates_ms: Mapping[int, float]) -> list[int]:
    """RANKED widths within RANKED_WITHIN of the fastest of them, the closest two as far apart as can be."""
    ordered = sorted(candidates_ms, key=lambda width: candidates_ms[width])

    def apart(widths: Sequence[int]) -> float:
        values = [candidates_ms[width] for width in widths]
        return least_step(values) if max(values) <= (1 + RANKED_WITHIN) * min(values) else -1.0

    return list(max(itertools.combinations(ordered, RANKED), key=apart))


def least_step(values: Sequence[float]) -> float:
    """The smallest relative step between neighbours."""
    ordered = sorted(values)
    return min(after / before - 1 for before, after in itertools.pairwise(ordered))


def ranking_ms(runtime: str, folder: Path, widths: Sequence[int]) -> dict[int, float]:
    """Medians of these engines: each loaded in a fresh process of its own, then measured one after the other."""
    children = {width: engine_child() for width in widths}
    with ThreadPoolExecutor(len(children)) as threads:
        for width, child in children.items():
            engine = str(folder / f"w{width}.engine")
            threads.submit(ask, child, "load", runtime=runtime, engine=engine, options=load_options(runtime))
    found: dict[int, float] = {}
    for width, child in children.items():
        measured = ask(child, "measure", inputs=str(folder / f"w{width}.npz"), options={}, turns=device_turns(runtime))
        found[width] = measured["latency_ms_p50"]
        child.close()
    return found


def loop(engine: Path, inputs: Path, *options: str) -> dict[str, Any]:
    python = os.environ.get("LAYERSWEEP_ENGINE_PYTHON", sys.executable)
    done = subprocess.run(
        [python, str(ROOT / "benchmarks" / "performance" / "trtexec_loop.py"), str(engine), str(inputs), *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> float:
    return max(values) / min(values)


if __name__ == "__main__":
    sys.exit(main())
