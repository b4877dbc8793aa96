"""How long a training step takes on this GPU: kernel by kernel, and captured as one CUDA graph.

    python -m benchmarks.performance.training [--seconds 4] [--rounds 3] [--profile]
        [--out benchmarks/results/training.json]

Decoders of four sizes (among them nanoGPT's for characters: 6 layers, 6 heads, 384 wide; batches of 64 x 256 tokens,
dropout 0.2) on random tokens, as the torch child sets PyTorch up. Each round times both forms in turn, batches,
learning rates and reading every tenth loss included. Before that, 50 steps of both forms are compared bit for bit.
`floor_milliseconds` is three times the forward pass's operations by the GPU's peak (`--peak-tflops`, dense bfloat16).
`--profile` says which kernels a captured step of each size spends its time in.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch

from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.completion import complete
from layers.declarations import model as models
from layers.declarations.training import TrainingConfig, complete_training
from layers.modules.model import build
from layers.parameter import Scalar
from workers.data.batches import Batch
from workers.data.splits import TextSplit
from workers.training.step import CapturedStep, Step

BATCH, LENGTH, VOCABULARY, DROPOUT = 64, 256, 65, 0.2
SIZES = {"2 of 128": (2, 4, 128), "4 of 256": (4, 4, 256), "6 of 384": (6, 6, 384), "12 of 768": (12, 12, 768)}
TRAINING = {"gradient_clip": 1.0, "weight_decay": 0.1, "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.99}
STEPS = 5_000
"""What the section says; as many are taken as there is time for."""
READ_EVERY = 10
WARM_STEPS, PROFILED_STEPS = 20, 20
SHOWN_KERNELS, NAME_CHARACTERS = 25, 120
DEVICE = torch.device("cuda")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each form in each round")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--profile", action="store_true")
    arguments.add_argument("--peak-tflops", type=float, default=989.0, help="of an H100 or H200 SXM: 989")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    sizes: dict[str, Any] = {}
    for label, size in SIZES.items():
        sizes[label] = measure(*size, options.seconds, options.rounds)
        sizes[label]["floor_milliseconds"] = round(3e3 * flops(*size) / (options.peak_tflops * 1e12), 4)
        if options.profile:
            sizes[label]["profile"] = profiled(made(CapturedStep, *size))
            print(f"{label}: {json.dumps(sizes[label]['profile'])}", flush=True)
    report = {
        "benchmark": "training",
        "command": "python -m benchmarks.performance.training " + " ".join(sys.argv[1:]),
        "machine": {**machine(), "gpu": torch.cuda.get_device_name(), "torch": torch.__version__},
        "peak_tflops": options.peak_tflops,
        "batch": {"sequences": BATCH, "tokens": LENGTH, "vocabulary": VOCABULARY, "dropout": DROPOUT},
        "sizes": sizes,
    }
    write(report, options.out)
    print(json.dumps(report))
    return 0


def measure(layers: int, heads: int, width: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Both forms of one size."""
    same = losses(made(Step, layers, heads, width), 50) == losses(made(CapturedStep, layers, heads, width), 50)
    forms: Mapping[str, Step] = {
        "kernel by kernel": made(Step, layers, heads, width),
        "captured": made(CapturedStep, layers, heads, width),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, step in forms.items():
            times[name].append(milliseconds_a_step(step, seconds))
    captured = forms["captured"]
    found: dict[str, Any] = {
        "bit_equal_for_50_steps": same,
        "is_captured": isinstance(captured, CapturedStep) and captured.is_captured,
    }
    for name, each in times.items():
        median = statistics.median(each)
        found[name] = {
            "milliseconds_a_step": each,
            "median_milliseconds": median,
            "tokens_per_second": BATCH * LENGTH / median * 1e3,
        }
    print(f"{layers} layers of {width}: {found}", flush=True)
    return found


def model_of(layers: int, heads: int, width: int) -> dict[str, Scalar]:
    return complete(
        "causal_lm",
        {"num_layers": layers, "hidden_size": width, "attention.num_attention_heads": heads},
        {"vocabulary_size": VOCABULARY, "sequence_length": LENGTH},
    )


def flops(layers: int, heads: int, width: int) -> float:
    """Operations of a batch's forward pass."""
    return models.flops(model_of(layers, heads, width), BATCH, LENGTH)


def profiled(step: Step) -> dict[str, Any]:
    """The device's time in a step, in all and by kernel: those that take most."""
    given = batches()
    for _ in range(WARM_STEPS):
        step.take(next(given), 1e-3)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(PROFILED_STEPS):
            step.take(next(given), 1e-3)
        torch.cuda.synchronize()
    kernels = sorted(profile.key_averages(), key=lambda kernel: kernel.self_device_time_total, reverse=True)
    busy_us = sum(kernel.self_device_time_total for kernel in kernels)
    return {
        "device_milliseconds_a_step": round(busy_us / PROFILED_STEPS / 1e3, 4),
        "kernels_a_step": round(sum(kernel.count for kernel in kernels) / PROFILED_STEPS, 1),
        "kernels": [
            {
                "name": kernel.key[:NAME_CHARACTERS],
                "share": round(kernel.self_device_time_total / busy_us, 4),
                "launches_a_step": round(kernel.count / PROFILED_STEPS, 1),
                "microseconds": round(kernel.self_device_time_total / kernel.count, 2),
            }
            for kernel in kernels[:SHOWN_KERNELS]
        ],
    }


def made(kind: type[Step], layers: int, heads: int, width: int) -> Step:
    model = model_of(layers, heads, width)
    torch.manual_seed(0)
    module = build(model, dropout=DROPOUT).to(DEVICE).train()
    inference = {"batch_size": BATCH, "sequence_length": LENGTH}
    section = complete_training({"batch_size": BATCH, "dropout": DROPOUT, "steps": STEPS, **TRAINING}, inference)
    return kind(module, TrainingConfig.of(section), names=("tokens",), device=DEVICE)


def batches() -> Iterator[Batch]:
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 1_000_000).astype(np.uint8)
    return TextSplit(tokens, LENGTH).training(np.random.default_rng(1), BATCH)


def losses(step: Step, steps: int) -> list[float]:
    torch.manual_seed(1)
    given = batches()
    return torch.stack([step.take(next(given), 1e-3) for _ in range(steps)]).tolist()


def milliseconds_a_step(step: Step, seconds: float) -> float:
    given = batches()
    for _ in range(WARM_STEPS):
        step.take(next(given), 1e-3)
    torch.cuda.synchronize()
    started_at, taken = time.monotonic(), 0
    while time.monotonic() - started_at < seconds:
        unread = [step.take(next(given), 1e-3) for _ in range(READ_EVERY)]
        torch.stack(unread).tolist()
        taken += READ_EVERY
    return (time.monotonic() - started_at) / taken * 1e3


if __name__ == "__main__":
    sys.exit(main())
