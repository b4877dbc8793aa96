"""What a step costs: can its time be trusted, and how near is it to what memory allows?

    python -m benchmarks.performance.generation --runtime tensorrt --bandwidth-gb-s 3350
        [--layers 14 --hidden-size 768 --heads 12 --kv-heads 12 --prompt 128 --new 128 --batch 1]
        [--processes 10] [--level 3] [--seconds 300] [--out benchmarks/results/generation.json]

1. spread: the step with the largest caches, and the forward engine of as many tokens, in fresh processes in turns;
   max/min of the medians of each.
2. independent: benchmarks/performance/trtexec_loop.py on the same engine of the step, rows written too, three times, in
   turns with ours (TensorRT). Once more after an earlier capture of the same step that was only uploaded to the device,
   and after one that was launched, too.
3. floor: weights and caches are read once a step. What that takes at the bandwidth of the device's memory, which you
   give, over what a step took. The default model has 99 M parameters beside its table.

--level is TensorRT's builder_optimization_level; two builds of the default model took longer than anything else here.
After --seconds, builds included, no further turn begins.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.engines import (
    ask,
    build_engine,
    device_turns,
    engine_child,
    load_options,
    measure_fresh,
)
from benchmarks.performance.repeatability import loop, spread
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.completion import complete
from layers.declarations.inference.generation import GenerationConfig
from layers.declarations.model import parameter_count
from workers.engine.base import TensorSpec
from workers.engine.generation.caches import Caches

VOCABULARY = 256


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--layers", type=int, default=14)
    arguments.add_argument("--hidden-size", type=int, default=768)
    arguments.add_argument("--heads", type=int, default=12)
    arguments.add_argument("--kv-heads", type=int, default=12)
    arguments.add_argument("--prompt", type=int, default=128)
    arguments.add_argument("--new", type=int, default=128)
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--processes", type=int, default=10)
    arguments.add_argument("--level", type=int, default=3, help="of TensorRT's builder, 0 to 5")
    arguments.add_argument("--seconds", type=float, default=math.inf)
    arguments.add_argument("--bandwidth-gb-s", type=float, help="of the device's memory, by its data sheet or measured")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    runtime = options.runtime
    given = {
        "num_layers": options.layers,
        "hidden_size": options.hidden_size,
        "attention.num_attention_heads": options.heads,
        "attention.num_kv_heads": options.kv_heads,
        "attention.position_embedding_type": "rope_gpt_neox",
        "dtype": "float32" if runtime == "onnxruntime" else "float16",
    }
    length = options.prompt + options.new
    model = complete("causal_lm", given, {"vocabulary_size": VOCABULARY, "sequence_length": length})
    inference = {"batch_size": options.batch, "prompt_tokens": options.prompt, "new_tokens": options.new}
    config = GenerationConfig.of(model, inference)
    until = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        level = {"optimization_level": options.level} if runtime == "tensorrt" else {}
        target, built = _build(runtime, folder, model, config, level)
        np.savez(folder / "forward.npz", tokens=np.zeros((options.batch, length), np.int32))
        steps: list[dict[str, Any]] = []
        forwards: list[dict[str, Any]] = []
        independent: list[dict[str, Any]] = []
        after_earlier: dict[str, dict[str, Any]] = {}
        for turn in range(options.processes):
            if steps and time.monotonic() > until:
                break
            steps.append(_measure_step(runtime, folder / "step.engine", config.text_tokens - 1))
            forwards.append(measure_fresh(runtime, folder / "forward.engine", folder / "forward.npz"))
            if turn < 3 and runtime == "tensorrt":
                independent.append(_loop(folder, config))
            if not turn and runtime == "tensorrt":
                after_earlier = {each: _loop(folder, config, "--earlier", each) for each in ("uploaded", "launched")}
            print(
                json.dumps({"step": steps[-1]["latency_ms_p50"], "forward": forwards[-1]["latency_ms_p50"]}), flush=True
            )
    medians_ms = [each["latency_ms_p50"] for each in steps]
    summary: dict[str, Any] = {
        "parameters": parameter_count(model),
        "kv_cache_bytes": config.kv_cache_bytes,
        "step_ms": float(np.median(medians_ms)),
        "spread_step": spread(medians_ms),
        "spread_forward": spread([each["latency_ms_p50"] for each in forwards]),
    }
    if independent:
        theirs = float(np.median([each["median_ms"] for each in independent]))
        summary |= {"independent_ms": theirs, "off": float(np.median(medians_ms[:3])) / theirs - 1}
        summary |= {f"independent_ms_after_{each}": measured["median_ms"] for each, measured in after_earlier.items()}
    if options.bandwidth_gb_s:
        floor_ms = (built["weights_bytes"] + config.kv_cache_bytes) / options.bandwidth_gb_s / 1e6
        summary |= {"floor_ms": floor_ms, "share_of_floor": floor_ms / summary["step_ms"]}
    report = {
        "benchmark": "generation",
        "command": "python -m benchmarks.performance.generation " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "model": given,
        "inference": inference,
        "built": built,
        "summary": summary,
        "steps": [_brief(each) for each in steps],
        "forwards": [_brief(each) for each in forwards],
        "independent": independent,
        "after_earlier": after_earlier,
    }
    write(report, options.out)
    print(json.dumps(summary))
    return 0


def _build(
    runtime: str, folder: Path, model: dict[str, Any], config: GenerationConfig, level: dict[str, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the step with the largest caches, and the forward engine of a whole text; what the first says of itself."""
    import torch

    from layers.export.generation_export import export_decode
    from layers.export.onnx_export import cast_copy, export
    from layers.modules.model import Decoder
    from layers.modules.model import build as build_module

    child = engine_child()
    target = ask(child, "describe", runtime=runtime)
    torch.manual_seed(0)
    decoder = cast_copy(build_module(model), str(model["dtype"]))
    assert isinstance(decoder, Decoder)
    export_decode(decoder, config, {config.capacity: folder / "step.onnx"}, opset=target["opset"])
    tokens = torch.zeros(config.batch_size, config.prompt_tokens + config.new_tokens, dtype=torch.int32)
    export(decoder, (tokens,), folder / "forward.onnx", opset=target["opset"], input_names=("tokens",))
    built: dict[str, dict[str, Any]] = {}
    for name in ("step", "forward"):
        built[name] = build_engine(child, runtime, folder / f"{name}.onnx", folder / f"{name}.engine", level)
        print(json.dumps({f"build_seconds_{name}": built[name]["build_seconds"]}), flush=True)
    child.close()
    return target, built["step"]


def _measure_step(runtime: str, engine: Path, position: int) -> dict[str, Any]:
    """Load and measure in a process of its own, when it is its turn."""
    child, turns = engine_child(), device_turns(runtime)
    try:
        ask(child, "load", runtime=runtime, engine=str(engine), options=load_options(runtime), turns=turns)
        return ask(child, "measure_step", position=position, options={}, turns=turns)
    finally:
        child.close()


def _loop(folder: Path, config: GenerationConfig, *options: str) -> dict[str, Any]:
    inputs = _step_inputs(config, folder / "step.npz")
    return loop(folder / "step.engine", inputs, "--slot", str(config.text_tokens - 1), *options)


def _step_inputs(config: GenerationConfig, path: Path) -> Path:
    """The inputs of the last step, for the loop that shares no code with the worker's."""
    capacity, batch = config.capacity, config.batch_size
    int32, float16 = np.dtype(np.int32), np.dtype(np.float16)
    specs = [
        TensorSpec("tokens", int32, (batch, 1)),
        TensorSpec("position", int32, (1,)),
        TensorSpec("positions", int32, (capacity,)),
    ]
    for layer, cache in enumerate(config.caches):
        shape = (batch, cache.num_heads, capacity, cache.head_size)
        specs += [TensorSpec(f"past_{name}_{layer}", float16, shape) for name in ("key", "value")]
    np.savez(path, allow_pickle=False, **Caches(specs).step(np.zeros(batch, np.int32), config.text_tokens - 1))
    return path


def _brief(measured: dict[str, Any]) -> dict[str, Any]:
    kept = ("latency_ms_p50", "latency_ms_p99", "latency_cv", "runs", "flagged")
    return {name: measured[name] for name in kept}


if __name__ == "__main__":
    sys.exit(main())
