"""Curves and costs of random points of `examples/quickstart.yaml`: a table on which searches are replayed.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.training_curves train [--points 200] [--repeated 60]
        [--steps 90] [--out benchmarks/results/training-curves.jsonl]
    python -m benchmarks.performance.training_curves measure [--out ...]

`train` draws feasible points at random and trains each as a worker does: the same loop, data and losses, in this
process. Steps are fewer than the example's, and there is an evaluation at every ninth of them. `--repeated` of the
points are trained with two more seeds. One line of JSON a training is appended; what is there already is not trained
again. `measure` gives every architecture of the table its latency and memory as the engine child measures them; run
it on a quiet machine. It writes `training-hardware.json` beside the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import yaml

from benchmarks.support.processes import ROOT, machine
from layers.configuration import Configuration, TrialConfiguration
from layers.parameter import Scalar
from layers.space.document import Rejection, Space, parse_document

TABLE = ROOT / "benchmarks" / "results" / "training-curves.jsonl"
HARDWARE = "training-hardware.json"
EVALUATIONS = 9
BLOCK = 10
"""Points that are trained before those of them that are repeated get their further seeds."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One training of the table. Losses are in nats a token."""

    point: int
    seed: int
    parameters: Mapping[str, Scalar]
    """The open parameters of the space."""
    parameter_count: int
    flops: int
    steps: int
    train_seconds: float
    """On a machine that others used."""
    validation_losses: Sequence[float]
    """Of the fixed sample that chooses the checkpoint, at every ninth of the steps."""
    training_losses: Sequence[float]
    """The curve that a worker reports: means since the point before."""
    training_steps: Sequence[int]
    validation_loss: float
    """Of the best checkpoint over the whole validation split, in float32."""


def document(steps: int) -> dict[str, Any]:
    """The example with so many steps, the warm-up's share of them, and nine evaluations."""
    example = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    example["training"] |= {"steps": steps, "warmup_steps": steps // 8, "eval_every": steps // EVALUATIONS}
    return example


def read_table(path: Path) -> list[TrainingRow]:
    """The trainings that were kept."""
    return [TrainingRow(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def architecture(parameters: Mapping[str, Scalar]) -> str:
    """What latency and memory depend on: the parameters of the model."""
    return json.dumps({name: parameters[name] for name in sorted(parameters) if not name.startswith("training.")})


def drawn(space: Space, points: int) -> list[dict[str, Scalar]]:
    """So many different feasible points; a longer draw begins with a shorter one."""
    source, found = random.Random("training curves"), dict[str, dict[str, Scalar]]()
    while len(found) < points:
        chosen = dict(space.sample(source))
        if not isinstance(_completed(space, chosen), Rejection):
            found.setdefault(json.dumps(chosen, sort_keys=True), chosen)
    return list(found.values())


def planned(points: int, repeated: int, done: Collection[tuple[int, int]] = ()) -> Iterator[tuple[int, int]]:
    """Points with their seeds, in blocks: what is cut short has repeated points as well. Of these there are `repeated`,
    evenly over the points, those first that are among the trainings that are done."""
    chosen = sorted({point for point, seed in done if seed > 0 and point < points})
    others = [point for point in range(points) if point not in chosen]
    more = max(0, repeated - len(chosen))
    chosen += [others[(2 * index + 1) * len(others) // (2 * more)] for index in range(more)]
    for start in range(0, points, BLOCK):
        block = range(start, min(points, start + BLOCK))
        yield from ((point, 0) for point in block)
        yield from ((point, seed) for point in block if point in chosen for seed in (1, 2))


def train(options: argparse.Namespace) -> None:
    import torch

    from service.datasets.builtins import python_topics

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    done = {(row.point, row.seed) for row in read_table(options.out)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content, _ = python_topics(folder)
        for split in ("training", "validation"):
            np.savez(folder / f"{split}.npz", allow_pickle=False, **content.splits[split])
        about = {"task": content.task, "tokenizer": content.tokenizer, "facts": content.facts}
        space = parse_document(document(options.steps), find_dataset=lambda _: about).space
        points = drawn(space, options.points)
        for point, seed in planned(options.points, options.repeated, done):
            if (point, seed) in done:
                continue
            row = _trained(space, points[point], point, seed, folder)
            with options.out.open("a") as table:
                table.write(json.dumps(asdict(row), separators=(",", ":")) + "\n")
            print(point, seed, row.validation_loss, row.train_seconds, flush=True)


def _completed(space: Space, chosen: Mapping[str, Scalar]) -> Any:
    return space.complete_or_reject(space.resolve(chosen), None)


def _trained(space: Space, chosen: Mapping[str, Scalar], point: int, seed: int, folder: Path) -> TrainingRow:
    from layers.declarations.model import flops
    from workers.data.splits import Form, load_split
    from workers.processes.torch_child import ModelProcess

    configuration: Configuration = space.configured(_completed(space, chosen))
    configuration["training"]["seed"] = seed
    understood = TrialConfiguration.of(configuration)
    process, curve = ModelProcess(), list[dict[str, Any]]()
    prepared = process.prepare({"configuration": configuration}, lambda _: None)
    request = {**{split: str(folder / f"{split}.npz") for split in ("training", "validation")}, "specials": {}}
    answer = process.train(request, curve.append)
    form = Form.of(("tokens",), understood.inference, {})
    batches = folder / "batches.npz"
    load_split(folder / "validation.npz", "causal_lm", form).evaluation(1).save(batches)
    evaluated = process.evaluate({"batches": str(batches)}, lambda _: None)
    reported = [each for each in curve if "learning_rate" in each]
    return TrainingRow(
        point=point,
        seed=seed,
        parameters=chosen,
        parameter_count=prepared["parameter_count"],
        flops=int(flops(understood.model, 1, understood.inference.sequence_length, None)),
        steps=answer["steps"],
        train_seconds=round(answer["seconds"], 2),
        validation_losses=[round(each["validation_loss"], 5) for each in reported if "validation_loss" in each],
        training_losses=[round(each["training_loss"], 3) for each in reported if "training_loss" in each],
        training_steps=[each["step"] for each in reported if "training_loss" in each],
        validation_loss=round(evaluated["loss"], 6),
    )


def measure(options: argparse.Namespace) -> None:
    from benchmarks.performance.engines import build_engine, engine_child, export_decoder, measure_fresh
    from layers.export.onnx_export import warm_up
    from workers.engine.machine import load_average
    from workers.trial.load import MEMORY_METRICS

    known = document(9 * EVALUATIONS)
    space = parse_document(known, find_dataset=lambda _: _BYTES).space
    of_architecture = {architecture(row.parameters): row.parameters for row in read_table(options.out)}
    place = options.out.with_name(HARDWARE)
    found: dict[str, Any] = {} if options.again or not place.exists() else json.loads(place.read_text())["measured"]
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text, parameters in sorted(of_architecture.items()):
            if text in found:
                continue
            model = space.configured(_completed(space, parameters))["model"]
            length = known["inference"]["sequence_length"]
            onnx, engine, inputs = (folder / each for each in ("model.onnx", "model.engine", "inputs.npz"))
            tokens = export_decoder(onnx, model, vocabulary=256, batch=1, length=length, opset=18)
            np.savez(inputs, tokens=tokens[None])
            child = engine_child()
            try:
                built = build_engine(child, "onnxruntime", onnx, engine)
            finally:
                child.close()
            told = measure_fresh("onnxruntime", engine, inputs)
            found[text] = {
                "latency_ms_p50": told["latency_ms_p50"],
                "latency_cv": told["latency_cv"],
                "memory_bytes": sum(built[name] for name in MEMORY_METRICS),
                "load_average": (load_average() or [None])[0],
            }
            print(text, found[text], flush=True)
            report = {"command": "python -m benchmarks.performance.training_curves measure", "machine": machine()}
            place.write_text(json.dumps({**report, "measured": found}, indent=0) + "\n")


_BYTES = {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 256}}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pass_", metavar="pass", choices=["train", "measure"])
    arguments.add_argument("--points", type=int, default=200)
    arguments.add_argument("--repeated", type=int, default=60)
    arguments.add_argument("--steps", type=int, default=90)
    arguments.add_argument("--again", action="store_true", help="measure what was measured before, too")
    arguments.add_argument("--out", type=Path, default=TABLE)
    options = arguments.parse_args()
    {"train": train, "measure": measure}[options.pass_](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
