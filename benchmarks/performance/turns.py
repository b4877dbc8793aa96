"""What a training does to a measurement on its device: where it gives way between its steps, and where it does not.

    python -m benchmarks.performance.turns [--runtime onnxruntime] [--rounds 5] [--trainings 1]
        [--out benchmarks/results/turns.json]

Each round measures one engine, each time in a fresh process: alone; `unheeded`, beside trainings that take turns on
other files; and `in_turn`, beside some that take turns on the same. The last line is JSON: of each the median over the
rounds of its figures over those of the same round alone, its coefficient of variation, and how long it waited.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.engines import ask, build_engine, engine_child, export_decoder, measure_fresh
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.completion import complete
from layers.dataset_facts import DatasetFacts, ModelFacts
from layers.declarations.inference.parameters import complete_inference
from layers.declarations.training import complete_training
from workers.devices import device
from workers.devices.locks import turns_of
from workers.engine.__main__ import DEVICE_KINDS
from workers.interruption import DrainedError, Interruption
from workers.processes.children import Children
from workers.processes.model_verbs import PREPARE, TRAIN

MODEL = {"num_layers": 4, "hidden_size": 256, "attention.num_attention_heads": 4}
SHAPE = {"vocabulary": 256, "batch": 8, "length": 128}
FACTS: DatasetFacts = {"vocabulary_size": 256, "tokenizer": "byte"}
OPTIONS = {"seconds": 2.0}
FIGURES = ("latency_ms_p50", "latency_ms_p99")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="onnxruntime")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--trainings", type=int, default=1, help="beside the measurement")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    runtime = options.runtime
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = engine_child()
        target = ask(builder, "describe", runtime=runtime)
        tokens = export_decoder(folder / "it.onnx", MODEL, opset=target["opset"], **SHAPE)
        np.savez(folder / "it.npz", tokens=tokens)
        build_engine(builder, runtime, folder / "it.onnx", folder / "it.engine")
        builder.close()
        generator = np.random.default_rng(0)
        np.savez(folder / "text.npz", tokens=generator.integers(0, 256, 100_000).astype(np.uint8))
        here, elsewhere = (str(turns_of(uuid, folder / "locks")) for uuid in ("here", "elsewhere"))

        rounds: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            found = {"alone": brief(measure_fresh(runtime, folder / "it.engine", folder / "it.npz", OPTIONS, here))}
            for situation, turns in (("unheeded", elsewhere), ("in_turn", here)):
                with ExitStack() as beside:
                    for _ in range(options.trainings):
                        beside.enter_context(training(runtime, folder / "text.npz", turns))
                    measured = measure_fresh(runtime, folder / "it.engine", folder / "it.npz", OPTIONS, here)
                found[situation] = brief(measured)
            rounds.append(found)
            print(json.dumps(found), flush=True)

    summary = {situation: over_alone(rounds, situation) for situation in ("unheeded", "in_turn")}
    report = {
        "benchmark": "turns",
        "command": "python -m benchmarks.performance.turns " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "model": MODEL,
        "shape": SHAPE,
        "summary": summary,
        "rounds": rounds,
    }
    write(report, options.out)
    print(json.dumps(summary))
    return 0


def brief(measured: dict[str, Any]) -> dict[str, Any]:
    kept = {name: measured[name] for name in (*FIGURES, "latency_cv", "flagged", "runs")}
    return {**kept, "waited_seconds": measured["environment"]["waited_seconds"]}


def over_alone(rounds: list[dict[str, Any]], situation: str) -> dict[str, float]:
    found = {name: [each[situation][name] / each["alone"][name] for each in rounds] for name in FIGURES}
    plain = {name: [each[situation][name] for each in rounds] for name in ("latency_cv", "waited_seconds")}
    return {name: statistics.median(values) for name, values in {**found, **plain}.items()}


@contextmanager
def training(runtime: str, text: Path, turns: str) -> Generator[None]:
    """A training of the same model on the same device, with all threads, from its first steps to the context's end."""
    begun, over = threading.Event(), Interruption()

    def train() -> None:
        # A child lives no longer than the thread that started it.
        gpu = device.chosen(None if DEVICE_KINDS[runtime] == "gpu" else "cpu")
        children = Children(threads=device.default_threads(), gpu_uuid=gpu.uuid if gpu else None)
        inference = complete_inference(
            {"batch_size": SHAPE["batch"], "sequence_length": SHAPE["length"]}, "causal_lm", FACTS
        )
        facts: ModelFacts = {"vocabulary_size": SHAPE["vocabulary"], "sequence_length": SHAPE["length"]}
        configuration = {
            "task": "causal_lm",
            "model": complete("causal_lm", MODEL, facts),
            "training": complete_training({"steps": 1_000_000, "eval_every": 1_000_000}, inference, "causal_lm", FACTS),
            "inference": inference,
        }
        model = children.model()
        try:
            model.request(PREPARE, {"configuration": configuration}, timeout_seconds=120)
            parts = {"training": str(text), "validation": str(text), "specials": {}, "turns": turns}
            model.request(
                TRAIN, parts, timeout_seconds=None, on_progress=lambda progress: begun.set(), interruption=over
            )
        except DrainedError:
            children.kill()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        if not begun.wait(120):
            raise RuntimeError("the training did not begin")
        yield
    finally:
        over.set(DrainedError("the measurement is over"))
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
