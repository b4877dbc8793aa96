"""What a kept builder process and the engine cache save, on the same architecture and on a similar one.

    python -m benchmarks.performance.builds --runtime tensorrt [--out benchmarks/results/builds.json]

In turns, each in seconds from asking to having the engine, for each dtype:

- cold: in a fresh process, which must start and load the library first
- same: in the process that has just built the same architecture, with other weights (a trained model's rebuild)
- similar: in that process, another width of the feed-forward layer
- similar_cold: the same other width in a fresh process
- cached: the first engine again, out of the engine cache (keying the graph and copying the file)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.performance.engines import ask, build_engine, engine_child, export_decoder
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from workers.engine_cache import EngineCache

MODEL = {"num_layers": 4, "hidden_size": 384, "attention.num_attention_heads": 6}
SIMILAR = {**MODEL, "mlp.ffn_hidden_size": 1280}
SHAPE = {"vocabulary": 65, "batch": 8, "length": 256}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--dtypes", nargs="+", default=["float32", "float16"])
    arguments.add_argument("--level", type=int, default=1)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    child = engine_child()
    target = ask(child, "describe", runtime=options.runtime)
    child.close()
    level = {"optimization_level": options.level} if "optimization_level" in target["build_options"] else {}
    with tempfile.TemporaryDirectory() as name:
        seconds = {
            dtype: of_dtype(options.runtime, dtype, level, target["opset"], Path(name)) for dtype in options.dtypes
        }
    report = {
        "benchmark": "builds",
        "command": "python -m benchmarks.performance.builds " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "model": MODEL,
        "similar": SIMILAR,
        "shape": SHAPE,
        "seconds": seconds,
    }
    write(report, options.out)
    print(json.dumps(seconds))
    return 0


def of_dtype(runtime: str, dtype: str, options: dict[str, int], opset: int, parent: Path) -> dict[str, float]:
    """The five figures, in seconds."""
    folder = parent / dtype
    folder.mkdir()
    for label, model, seed in (("first", MODEL, 0), ("trained", MODEL, 1), ("similar", SIMILAR, 0)):
        made = folder / f"{label}.onnx"
        export_decoder(made, {**model, "dtype": dtype}, opset=opset, seed=seed, **SHAPE)
    found: dict[str, float] = {}

    def build(child: Any, label: str) -> dict[str, Any]:
        return build_engine(child, runtime, folder / f"{label}.onnx", folder / f"{label}.engine", options)

    def cold(label: str) -> tuple[Any, dict[str, Any]]:
        child = engine_child()
        return child, build(child, label)

    (kept, built), found["cold"] = timed(lambda: cold("first"))
    _, found["same"] = timed(lambda: build(kept, "trained"))
    _, found["similar"] = timed(lambda: build(kept, "similar"))
    kept.close()
    (other, _), found["similar_cold"] = timed(lambda: cold("similar"))
    other.close()
    cache = EngineCache(folder / "cache")
    cache.keep(cache.key(folder / "first.onnx", runtime=runtime), folder / "first.engine", built)
    taken, found["cached"] = timed(
        lambda: cache.take(cache.key(folder / "first.onnx", runtime=runtime), folder / "again.engine")
    )
    assert taken is not None
    return {name: round(value, 3) for name, value in found.items()}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds that it took."""
    started = time.monotonic()
    return work(), time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
