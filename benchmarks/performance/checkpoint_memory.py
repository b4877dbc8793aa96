"""How much memory the service takes to register a checkpoint: of a Llama-like model with random weights.

    python -m benchmarks.performance.checkpoint_memory [--layers 12] [--out benchmarks/results/checkpoint_memory.json]

What is looked at is what is the process's alone (`RssAnon`): mapped files can be read again. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.checkpoints.matching import match, whole
from layers.checkpoints.tensors import Link
from layers.completion import complete
from service.checkpoints import reading

WIDTH, INNER, VOCABULARY = 768, 2048, 50_000
SAMPLE_SECONDS = 0.01


def checkpoint(layers: int, folder: Path) -> tuple[Path, Path]:
    """config.json and model.safetensors in float32."""
    values = {
        "num_layers": layers,
        "hidden_size": WIDTH,
        "attention.num_attention_heads": 12,
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.bias": False,
        "mlp.kind": "GatedMLP",
        "mlp.ffn_hidden_size": INNER,
        "mlp.bias": False,
        "norm.kind": "RmsNorm",
    }
    model = complete("causal_lm", values, {"vocabulary_size": VOCABULARY, "sequence_length": 64})
    found, generator = match(model), np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for part in found.architecture.parts(whole(model)):
        for name, rows in part.theirs.items() if isinstance(part, Link) else ():
            columns = () if "norm" in name else (INNER,) if "down_proj" in name else (WIDTH,)
            tensors[name] = generator.standard_normal((rows, *columns), dtype=np.float32)
    config, weights = folder / "config.json", folder / "model.safetensors"
    config.write_text(json.dumps(found.config))
    save_file(tensors, weights)
    return config, weights


def anonymous_mb() -> float:
    """What is the process's alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) / 1024


@contextmanager
def peak_mb() -> Iterator[list[float]]:
    """The highest `anonymous_mb` until the context ends, in a list of one."""
    peak, ended = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], anonymous_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, weights = checkpoint(options.layers, folder)
        before = anonymous_mb()
        with peak_mb() as peak:
            content = reading.read(config, weights, folder)
        report = {
            "benchmark": "checkpoint_memory",
            "command": "python -m benchmarks.performance.checkpoint_memory " + " ".join(sys.argv[1:]),
            "machine": machine(),
            "parameters": content.parameter_count,
            "file_mb": round(weights.stat().st_size / 2**20, 1),
            "largest_tensor_mb": round(4 * VOCABULARY * WIDTH / 2**20, 1),
            "peak_above_mb": round(peak[0] - before, 1),
        }
    write(report, options.out)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
