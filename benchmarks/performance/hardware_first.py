"""What measuring before training saves: a sweep whose latency constraint excludes half of its space, and without it.

    python -m benchmarks.performance.hardware_first TEXT [--sweep examples/h200.yaml] [--trials 8] [--runtime tensorrt]
        [--out benchmarks/results/hardware_first.json]

The same random points twice, with caches of their own. First without the constraint, so that every trial is trained;
then with the median latency of the first run as the constraint, so that half of them end before they are trained. The
last line has the device seconds of both.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.end_to_end.h200 import executed, on_runtime
from benchmarks.support.report import write


def by_state(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each state in which trials ended: how many, and their device seconds."""
    found: dict[str, dict[str, float]] = {}
    for trial in report["trials"]:
        of_state = found.setdefault(trial["state"], {"trials": 0, "device_seconds": 0.0})
        of_state["trials"] += 1
        of_state["device_seconds"] += trial["metrics"].get("device_seconds", 0.0)
    return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--sweep", type=Path, default=Path("examples/h200.yaml"))
    arguments.add_argument("--trials", type=int, default=8)
    arguments.add_argument("--steps", type=int)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--out", type=Path, default=Path("benchmarks/results/hardware_first.json"))
    options = arguments.parse_args()

    document = on_runtime(yaml.safe_load(options.sweep.read_text()), options.runtime)
    document["search"] = {"sampler": "random", "seed": 0, "reuse": False}
    document["budget"]["trials"] = options.trials
    if options.steps:
        document["training"]["steps"] = options.steps
    without, _ = executed(copy.deepcopy(document), options.text)
    latencies = [trial["metrics"]["latency_ms_p50"] for trial in without["trials"] if trial["state"] == "complete"]
    limit = round(statistics.median(latencies), 4)
    document["constraints"] = [*document.get("constraints", []), f"latency_ms_p50 <= {limit}"]
    constrained, _ = executed(document, options.text)

    figures = {
        "constraint": document["constraints"][-1],
        "without": by_state(without),
        "with": by_state(constrained),
        "same_points": [t["parameters"] for t in without["trials"]] == [t["parameters"] for t in constrained["trials"]],
        "device_seconds_without": total_seconds(without),
        "device_seconds_with": total_seconds(constrained),
    }
    report = {
        "benchmark": "hardware_first",
        "command": "python -m benchmarks.performance.hardware_first "
        + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT"),
        "summary": figures,
        "runs": {"without": without, "with": constrained},
    }
    write(report, options.out)
    print(json.dumps(figures))
    return 0


def total_seconds(report: dict[str, Any]) -> float:
    return sum(each["device_seconds"] for each in by_state(report).values())


if __name__ == "__main__":
    sys.exit(main())
