"""What one graph for all shapes costs on ONNX Runtime, against a graph for each shape.

    python -m benchmarks.performance.open_shapes [--layers 4 --hidden-size 128 --heads 4] [--shapes 1x64 8x128 32x128]
        [--positions rope_gpt_neox alibi] [--runs 60] [--out benchmarks/results/open_shapes.json]

A decoder is exported with its batch and length left open, and once with each shape (batch x tokens). Both graphs answer
the same tokens in turns, the first one first in every other turn. Figures are of the processor's time of one thread, so
that what else runs on the machine is not in them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.completion import complete
from layers.export.onnx_export import HIGHEST_OPSET, cast_copy, export
from layers.modules.model import build
from workers.engine.onnxruntime.session import open_session, session_options

VOCABULARY = 256
TRACED = (5, 37)
"""Batch and length that the open graph is traced at: no other axis has their sizes."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--hidden-size", type=int, default=128)
    arguments.add_argument("--heads", type=int, default=4)
    arguments.add_argument("--shapes", nargs="+", type=_shape, default=[(1, 64), (8, 128), (32, 128)])
    arguments.add_argument("--positions", nargs="+", default=["rope_gpt_neox", "alibi"])
    arguments.add_argument("--runs", type=int, default=60)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    found: list[dict[str, Any]] = []
    report = {
        "benchmark": "open_shapes",
        "command": "python -m benchmarks.performance.open_shapes " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "found": found,
    }
    for positions in options.positions:
        module = _module(options, positions)
        with tempfile.TemporaryDirectory() as folder:
            opened = _session(module, TRACED, Path(folder) / "open.onnx", is_open=True)
            for shape in options.shapes:
                fixed = _session(module, shape, Path(folder) / "fixed.onnx", is_open=False)
                found.append({"positions": positions, "shape": shape, **_compared(fixed, opened, shape, options.runs)})
                print(json.dumps(found[-1]), flush=True)
                write(report, options.out)
    return 0


def _shape(text: str) -> tuple[int, int]:
    batch, _, length = text.partition("x")
    return int(batch), int(length)


class _Open(nn.Module):
    """A module as the exporter takes one whose sizes are open."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs)


def _module(options: argparse.Namespace, positions: str) -> nn.Module:
    given = {
        "num_layers": options.layers,
        "hidden_size": options.hidden_size,
        "attention.num_attention_heads": options.heads,
        "attention.position_embedding_type": positions,
    }
    longest = max(length for _, length in (*options.shapes, TRACED))
    torch.manual_seed(0)
    return cast_copy(
        build(complete("causal_lm", given, {"vocabulary_size": VOCABULARY, "sequence_length": longest})), "float32"
    )


def _session(module: nn.Module, shape: tuple[int, int], path: Path, *, is_open: bool) -> InferenceSession:
    tokens = torch.zeros(shape, dtype=torch.int32)
    if is_open:
        open_sizes: list[dict[int, str]] = [{0: "batch", 1: "tokens"}]
        export(_Open(module), (tokens,), path, opset=HIGHEST_OPSET, input_names=("tokens",), open_sizes=open_sizes)
    else:
        export(module, (tokens,), path, opset=HIGHEST_OPSET, input_names=("tokens",))
    return open_session(path, session_options(1, optimize=True))


def _compared(fixed: InferenceSession, opened: InferenceSession, shape: tuple[int, int], runs: int) -> dict[str, Any]:
    tokens = {"tokens": np.random.default_rng(0).integers(0, VOCABULARY, shape, dtype=np.int32)}
    sessions = {"fixed": fixed, "open": opened}
    answers = [np.asarray(session.run(None, tokens)[0]) for session in sessions.values()]
    times_ms: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(runs):
        for name in _in_turn(list(sessions), turn):
            started = time.process_time_ns()
            sessions[name].run(None, tokens)
            times_ms[name].append((time.process_time_ns() - started) / 1e6)
    medians = {name: float(np.median(times)) for name, times in times_ms.items()}
    return {
        **{f"{name}_ms": round(median, 4) for name, median in medians.items()},
        "ratio": round(medians["open"] / medians["fixed"], 3),
        "largest_difference": float(np.abs(answers[0] - answers[1]).max()),
    }


def _in_turn(names: Sequence[str], turn: int) -> Sequence[str]:
    return names if turn % 2 == 0 else names[::-1]


if __name__ == "__main__":
    sys.exit(main())
