"""What a user would write without Layersweep: one configuration after the other is trained, built, measured and scored.

    python -m benchmarks.performance.plain_script WORK.json

WORK.json: `points` (configurations), `training` and `validation` (NPZ files of a split), `runtime`, `limit_seconds`. It
is a good script: the optimizer is fused, losses are not waited for, the builder's process is kept warm, and nothing is
done twice. It trains kernel by kernel, as PyTorch does by itself. It prints one line of JSON a point.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.performance.engines import ask, engine_child, load_options
from layers.configuration import TrialConfiguration
from layers.declarations.training import TrainingConfig
from layers.export.onnx_export import cast_copy, export, export_loss
from layers.modules.model import build
from layers.signature import signature_of
from workers.data.splits import Form, Split, load_split

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEASURE = {"warmup_seconds": 0.2, "seconds": 3.0, "min_runs": 100}


def main() -> int:
    work = json.loads(Path(sys.argv[1]).read_text())
    builder = engine_child()
    target = ask(builder, "describe", runtime=work["runtime"])
    started_at = time.monotonic()
    for number, document in enumerate(work["points"]):
        if time.monotonic() - started_at > work["limit_seconds"]:
            break
        with tempfile.TemporaryDirectory() as name:
            point = Point(TrialConfiguration.of(document), work, Path(name), target["opset"])
            found = point.run(builder)
        ended_at = round(time.monotonic() - started_at, 3)
        print(json.dumps({"number": number, "ended_at_seconds": ended_at, **found}), flush=True)
    builder.close()
    return 0


class Point:
    """One configuration, from its weights to its scores."""

    def __init__(self, configuration: TrialConfiguration, work: Mapping[str, Any], folder: Path, opset: int) -> None:
        self._configuration = configuration
        self._work = work
        self._folder = folder
        self._opset = opset
        self._seconds: dict[str, float] = {}

    def run(self, builder: Any) -> dict[str, Any]:
        """Its losses, its latency, and the seconds of each step."""
        configuration, runtime = self._configuration, self._work["runtime"]
        training = configuration.training
        assert training is not None
        signature = signature_of(configuration)
        names = [given.name for given in signature.inputs]
        with self._timed("train"):
            torch.manual_seed(training.seed)
            module = build(configuration.model, dropout=training.dropout, initialization=training.initialization)
            train(module.to(DEVICE), self._split("training", names, training), training, names)
        onnx, loss_onnx, engine = (self._folder / name for name in ("model.onnx", "loss.onnx", "model.engine"))
        with self._timed("export"):
            dtype = str(configuration.model["dtype"])
            (output,) = signature.outputs
            export(
                cast_copy(module, dtype).to("cpu"),
                tuple(torch.zeros(given.shape, dtype=getattr(torch, given.dtype)) for given in signature.inputs),
                onnx,
                opset=self._opset,
                input_names=tuple(names),
                output_names=(output.name,),
            )
            export_loss(loss_onnx, logits_shape=output.shape, opset=self._opset, dtype=dtype)
        with self._timed("build"):
            options = configuration.inference.build_options()
            ask(builder, "build", runtime=runtime, onnx=str(onnx), engine=str(engine), options=options)
            loss = self._folder / "loss.engine"
            ask(builder, "build", runtime=runtime, onnx=str(loss_onnx), engine=str(loss), options={})
        with self._timed("measure"):
            split = self._split("validation", names, configuration.inference)
            batches = split.evaluation(configuration.inference.batch_size)
            batches.save(self._folder / "validation.npz")
            np.savez(self._folder / "inputs.npz", **{name: array[0] for name, array in batches.inputs.items()})
            runner = engine_child()
            ask(runner, "load", runtime=runtime, engine=str(engine), options=load_options(runtime))
            measured = ask(runner, "measure", inputs=str(self._folder / "inputs.npz"), options=MEASURE)
        with self._timed("evaluate"):
            sums = ask(runner, "loss", loss_graph=str(loss), batches=str(self._folder / "validation.npz"))
            runner.close()
        return {
            "seconds": self._seconds,
            "latency_ms_p50": measured["latency_ms_p50"],
            "validation_loss": sums["loss_sum"] / sums["weight_sum"],
        }

    def _split(self, name: str, names: list[str], section: Any) -> Split:
        return load_split(Path(self._work[name]), self._configuration.task, Form.of(names, section, {}))

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started_at = time.monotonic()
        yield
        self._seconds[step] = round(time.monotonic() - started_at, 3)


def train(module: nn.Module, split: Split, training: TrainingConfig, names: list[str]) -> None:
    """AdamW with warm-up and cosine decay, in bfloat16 where the device has it."""
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        weight_decay=training.weight_decay,
        fused=True,
    )
    batches = split.training(np.random.default_rng(training.seed), training.batch_size)
    steps = training.step_count()
    assert steps is not None
    module.train()
    for step in range(steps):
        batch = next(batches)
        warmed = min(1.0, (step + 1) / (training.warmup_steps + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        rate = training.min_learning_rate + decay * (training.learning_rate - training.min_learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = warmed * rate
        inputs = [torch.from_numpy(batch.inputs[name]).to(DEVICE, non_blocking=True) for name in names]
        targets = torch.from_numpy(batch.targets).to(DEVICE, non_blocking=True).long()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            logits = module(*inputs)
        loss = functional.cross_entropy(logits.float().flatten(0, -2), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if training.gradient_clip > 0:
            nn.utils.clip_grad_norm_(module.parameters(), training.gradient_clip)
        optimizer.step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
