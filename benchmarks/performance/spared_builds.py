"""What predictions in place of builds before a training save, and whether they hold.

    layersweep serve & layersweep worker --threads 1 &
    python -m benchmarks.performance.spared_builds [--server http://127.0.0.1:8420] [--trials 36] [--steps 60]
        [--out benchmarks/results/spared_builds.json]

The same random points of examples/quickstart.yaml twice, with limits that all of them keep: with `search.device_model`,
where trials are trained first as soon as 16 are measured and these limits are certain to be kept, and without it. The
service has to be new: what was measured before would spare more. The last line is the summary: the seconds of each
phase of the spared points in both, and how many of the predicted figures lie within their intervals. Where other work
uses the machine, compare the phases of one run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.support.report import write
from layersweep import Client
from layersweep.records.sweeps import TrialDetailRecord

LIMITS = ["latency_ms_p50 <= 2.0", "memory_bytes <= 1e8"]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", default="http://127.0.0.1:8420")
    arguments.add_argument("--trials", type=int, default=36)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--out", type=Path, default=Path("benchmarks/results/spared_builds.json"))
    options = arguments.parse_args()
    document = yaml.safe_load(Path("examples/quickstart.yaml").read_text())
    document["training"] |= {"steps": options.steps, "eval_every": options.steps // 2, "warmup_steps": 10}
    document |= {"constraints": LIMITS, "budget": {"trials": options.trials, "parallel": 1}}
    with Client(options.server) as client:
        predicted = executed(client, document, device_model=True)
        built = executed(client, document, device_model=False)
    figures = summary(predicted, built)
    report = {
        "benchmark": "spared_builds",
        "command": " ".join(["python -m benchmarks.performance.spared_builds", *sys.argv[1:]]),
        "summary": figures,
        "with": [shown(each) for each in predicted],
        "without": [shown(each) for each in built],
    }
    write(report, options.out)
    print(json.dumps(figures))
    return 0


def executed(client: Client, document: dict[str, Any], *, device_model: bool) -> list[TrialDetailRecord]:
    """The trials of a sweep over random points, by their numbers."""
    search = {"sampler": "random", "seed": 3, "reuse": False, "pruner": "none", "device_model": device_model}
    sweep = client.submit(document | {"name": f"spared builds {device_model}", "search": search}).wait()
    return [client.trial(f"{sweep.id}/{number}") for number in range(document["budget"]["trials"])]


def summary(predicted: list[TrialDetailRecord], built: list[TrialDetailRecord]) -> dict[str, Any]:
    """What the points that were spared a build have cost in both, and how their predictions came out."""
    spared = [number for number, trial in enumerate(predicted) if "predicted" in trial]
    held = [
        figure["low"] <= predicted[number]["metrics"][metric] <= figure["high"]
        for number in spared
        for metric, figure in predicted[number].get("predicted", {"figures": {}})["figures"].items()
    ]
    return {
        "same_points": [each["parameters"] for each in predicted] == [each["parameters"] for each in built],
        "trials": len(predicted),
        "spared": len(spared),
        "broken": sum(predicted[number]["feasible"] is False for number in spared),
        "figures": len(held),
        "figures_within": sum(held),
        "phase_seconds_of_spared_with": phase_seconds(predicted, spared),
        "phase_seconds_of_spared_without": phase_seconds(built, spared),
    }


def phase_seconds(trials: list[TrialDetailRecord], numbers: Iterable[int]) -> dict[str, float]:
    """How long each phase took in all of these trials."""
    seconds: dict[str, float] = {}
    for number in numbers:
        for phase in trials[number]["attempts"][-1]["phases"]:
            seconds[phase["phase"]] = seconds.get(phase["phase"], 0.0) + phase["seconds"]
    return {phase: round(total, 1) for phase, total in seconds.items()}


def shown(trial: TrialDetailRecord) -> dict[str, Any]:
    """What of a trial is kept."""
    kept = {name: trial.get(name) for name in ("number", "state", "feasible", "parameters", "predicted", "metrics")}
    return kept | {"phases": {each["phase"]: each["seconds"] for each in trial["attempts"][-1]["phases"]}}


if __name__ == "__main__":
    sys.exit(main())
