"""Sweeps of Tiny Shakespeare on a GPU, end to end: a service, a worker, TensorRT engines.

    python -m benchmarks.end_to_end.h200 TEXT [--sweep examples/h200.yaml] [--trials N] [--steps N] [--name NAME]
        [--constraint "latency_ms_p50 <= 0.3"] [--runtime RUNTIME] [--all-devices] [--folder benchmarks/results]
    python -m benchmarks.end_to_end.h200 TEXT --preset nanogpt-char [--steps 5000]

Leaves NAME.json (the document, the target, every trial with its measurements, without raw samples) and NAME.log (the
worker's) in the folder, and prints one line of JSON last. `LAYERSWEEP_ENGINE_PYTHON` names the engines' interpreter.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.support.processes import machine, running_service, running_worker
from benchmarks.support.report import write
from layers.presets import PRESETS
from layersweep import Client


def preset_document(name: str) -> dict[str, Any]:
    """A preset as a sweep of one trial, at the precision that a GPU deploys."""
    parts: Mapping[str, Any] = {**PRESETS[name].document()}
    return {
        "name": name,
        "task": "causal_lm",
        "dataset": "tinyshakespeare",
        "model": parts["model"] | {"dtype": "float16"},
        "training": parts["training"],
        "inference": {"batch_size": 8, "optimization_level": 1, **parts.get("inference", {})},
        "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
        "budget": {"trials": 1},
        "search": {"sampler": "random"},
    }


def executed(
    document: dict[str, Any], text: Path, *, limit_seconds: float = 3600, worker_options: Sequence[str] = ()
) -> tuple[dict[str, Any], bytes]:
    """Run the sweep with a service and a worker of its own; what there is to say of it, and the worker's log.

    Where the limit comes first, it is reported as far as it got.
    """
    with tempfile.TemporaryDirectory() as name, running_service(Path(name)) as url:
        client = Client(url)
        client.add_dataset("tinyshakespeare", text, task="causal_lm", tokenizer="char", validation=0.1)
        with running_worker(url, Path(name), options=worker_options):
            started = time.monotonic()
            sweep = client.submit(document)
            while not sweep.refresh().ended and time.monotonic() - started < limit_seconds:
                time.sleep(1)
            seconds = time.monotonic() - started
            report: dict[str, Any] = {
                "machine": machine(),
                "targets": client.targets(),
                "workers": [worker["device"] for worker in client.workers()],
                "seconds": round(seconds, 1),
                "sweep": sweep.record,
                "trials": [brief({**client.trial(trial["id"])}) for trial in sweep.trials()],
            }
        return report, (Path(name) / "worker.log").read_bytes()[-400_000:]


def on_runtime(document: dict[str, Any], runtime: str) -> dict[str, Any]:
    """The same sweep for another runtime: the CPU's scores float32 and has no builder options."""
    document["target"] = {"runtime": runtime}
    if runtime == "onnxruntime":
        document["inference"].pop("optimization_level", None)
        document["model"]["dtype"] = "float32"
    return document


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The last line: how many trials are complete, the best loss, the cost."""
    complete = [trial for trial in report["trials"] if trial["state"] == "complete"]
    return {
        "state": report["sweep"]["state"],
        "complete": len(complete),
        "trials": len(report["trials"]),
        "seconds": report["seconds"],
        "best_validation_loss": min((trial["metrics"]["validation_loss"] for trial in complete), default=None),
        "device_seconds": sum(trial["metrics"].get("device_seconds", 0) for trial in report["trials"]),
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--sweep", type=Path, default=Path("examples/h200.yaml"))
    arguments.add_argument("--preset", choices=sorted(PRESETS))
    arguments.add_argument("--name")
    arguments.add_argument("--trials", type=int)
    arguments.add_argument("--steps", type=int)
    arguments.add_argument("--constraint", action="append", default=[])
    arguments.add_argument("--pruner", choices=["none", "pareto", "asha"], help="in place of the document's")
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--all-devices", action="store_true")
    arguments.add_argument("--folder", type=Path, default=Path("benchmarks/results"))
    arguments.add_argument("--limit-seconds", type=float, default=3600)
    options = arguments.parse_args()

    document = preset_document(options.preset) if options.preset else yaml.safe_load(options.sweep.read_text())
    document = on_runtime(document, options.runtime)
    document["constraints"] = [*document.get("constraints", []), *options.constraint]
    if options.trials:
        document["budget"]["trials"] = options.trials
    if options.steps:
        document["training"]["steps"] = options.steps
    if options.pruner:
        document["search"]["pruner"] = options.pruner
    worker_options = ["--all-devices"] if options.all_devices else []
    if options.all_devices:
        document["budget"].pop("parallel", None)
    report, log = executed(document, options.text, limit_seconds=options.limit_seconds, worker_options=worker_options)
    command = "python -m benchmarks.end_to_end.h200 " + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT")
    written: dict[str, Any] = {"benchmark": "h200", "command": command, **report}
    label = options.name or options.preset or document["name"]
    write(written, options.folder / f"{label}.json")
    (options.folder / f"{label}.log").write_bytes(log)
    for trial in written["trials"]:
        metrics = trial["metrics"]
        shown = {
            name: metrics.get(name) for name in ("latency_ms_p50", "memory_bytes", "validation_loss", "parity_error")
        }
        print(json.dumps({"number": trial["number"], "state": trial["state"], "reason": trial["reason"], **shown}))
    said = summary(written)
    print(json.dumps(said))
    return 0 if said["complete"] else 1


KEPT = ("cost", "waits", "parity", "training", "generation")
"""Measurements of a trial that a report has: those without samples, and what no other field says."""


def brief(trial: dict[str, Any]) -> dict[str, Any]:
    """What became of a trial, what it measured and what it cost."""
    fields = ("number", "state", "reason", "parameters", "metrics", "feasible", "on_front", "started_at", "ended_at")
    measurements = {name: trial["measurements"][name] for name in KEPT if name in trial["measurements"]}
    return {**{name: trial[name] for name in fields}, "measurements": measurements}


if __name__ == "__main__":
    sys.exit(main())
