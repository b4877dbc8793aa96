"""How well latencies are predicted from the trials that were measured: errors, intervals and false rejections.

    python -m benchmarks.performance.device_model table NPZ [--known 32] [--splits 20]
    python -m benchmarks.performance.device_model measure TEXT [--sweep examples/h200.yaml] [--points 128]
        [--runtime tensorrt] [--measured benchmarks/results/device-model-measured.json]
    python -m benchmarks.performance.device_model evaluate [--measured ...] [--known 32] [--splits 20]

`table` takes the measured architectures of HW-GPT-Bench (a scale on a device; arrays n, e, h, r, b, lat, params and
flops). `measure` builds and measures random points of a sweep on the device of this machine, without training them: a
limit that none can keep ends each trial after its measurement. What was measured is added to the file, so that it can
be run several times; `--seed` draws other points. `evaluate` takes that file.

Each split takes `--known` rows at random, fits the model that the service has to them and predicts the others (4,000
at most). The limit is at the median of the others. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.end_to_end.h200 import executed, on_runtime
from benchmarks.support.processes import ROOT, machine
from benchmarks.support.report import write
from service.scheduling.device_model.device_model import DeviceModel
from service.scheduling.device_model.measured import MeasuredTrial, measured

RESULTS = ROOT / "benchmarks" / "results"
MEASURED = RESULTS / "device-model-measured.json"
METRIC = "latency_ms_p50"
MOST_OTHERS = 4_000


@dataclass(frozen=True, slots=True)
class Split:
    """What one split found, as shares."""

    error: float
    """Mean absolute error over the value."""
    covered: float
    """Within their 90 % intervals."""
    falsely_rejected: float
    """Of those that keep the limit."""
    rejected: float
    """Of those that break it."""


def split(trials: Sequence[MeasuredTrial], known: int, seed: int, metric: str = METRIC) -> Split:
    """Fit to some of the trials, and predict the others."""
    order = np.random.default_rng(seed).permutation(len(trials))
    model = DeviceModel([trials[index] for index in order[:known]])
    others = [trials[index] for index in order[known : known + MOST_OTHERS]]
    others = [each for each in others if model.knows(metric, each.described)]
    described = [each.described for each in others]
    prediction, least = model.predict(metric, described), model.least(metric, described)
    assert prediction is not None, f"{known} rows are too few"
    assert least is not None, "what is predicted has bounds"
    values = np.array([each.metrics[metric] for each in others])
    low, high = model.interval(metric, prediction)
    limit = float(np.median(values))
    rejected = least > limit
    return Split(
        error=float(np.mean(np.abs(prediction.medians / values - 1))),
        covered=float(np.mean((low <= values) & (values <= high))),
        falsely_rejected=float(np.mean(rejected[values <= limit])),
        rejected=float(np.mean(rejected[values > limit])),
    )


def evaluate(trials: Sequence[MeasuredTrial], known: int, splits: int) -> dict[str, Any]:
    """Of repeated splits: the mean of each figure, and the middle 90 % of what is covered."""
    found = [split(trials, known, seed) for seed in range(splits)]
    means = {name: statistics.fmean(asdict(each)[name] for each in found) for name in asdict(found[0])}
    covered = sorted(each.covered for each in found)
    return {
        "rows": len(trials),
        "known": known,
        "splits": splits,
        **means,
        "covered_in_90_percent_of_splits": [
            covered[math.floor(0.05 * (splits - 1))],
            covered[math.ceil(0.95 * (splits - 1))],
        ],
        "highest_error": max(each.error for each in found),
    }


def of_table(path: Path) -> list[MeasuredTrial]:
    """The architectures of a table as trials: the parameters that a sweep of them would have."""
    with np.load(path) as file:
        table = {name: file[name] for name in file.files}
    trials: list[MeasuredTrial] = []
    for row in range(len(table["lat"])):
        layers = int(table["n"][row])
        model: dict[str, Any] = {
            "num_layers": layers,
            "hidden_size": int(table["e"][row]),
            "bias": bool(table["b"][row]),
        }
        for layer in range(layers):
            model[f"layers.{layer}.attention.num_attention_heads"] = int(table["h"][row][layer])
            model[f"layers.{layer}.mlp.ffn_hidden_size"] = int(table["r"][row][layer]) * model["hidden_size"]
        metrics = {
            METRIC: float(table["lat"][row]),
            "parameter_count": float(table["params"][row]),
            "flops": float(table["flops"][row]),
        }
        configuration = {"task": "probe", "model": model, "training": {}, "inference": {}}
        trials.append(measured(str(row), configuration, metrics))  # type: ignore[arg-type]
    return trials


def measure(options: argparse.Namespace) -> None:
    """Build and measure points on this machine's device, and add them to the file."""
    document = on_runtime(yaml.safe_load(options.sweep.read_text()), options.runtime)
    document["search"] = {"sampler": "random", "seed": options.seed, "reuse": False, "hardware_first": "always"}
    document["constraints"] = [*document.get("constraints", []), f"{METRIC} <= 1e-6"]
    document["budget"] = {"trials": options.points, "failures": options.points}
    report, _ = executed(document, options.text, limit_seconds=options.limit_seconds)
    known = json.loads(options.measured.read_text())["trials"] if options.measured.exists() else []
    new = [brief(trial) for trial in report["trials"] if METRIC in trial["metrics"]]
    kept = {
        "benchmark": "device_model",
        "command": "python -m benchmarks.performance.device_model "
        + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT"),
        **{name: report[name] for name in ("machine", "targets", "workers")},
        "trials": [*known, *new],
    }
    write(kept, options.measured)
    print(f"{len(new)} trials were measured in {report['seconds']:.0f} s; {len(kept['trials'])} are kept")


def brief(trial: Mapping[str, Any]) -> dict[str, Any]:
    """What a model learns of a trial."""
    return {"id": trial["id"], "configuration": trial["configuration"], "metrics": trial["metrics"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "measure", "evaluate"))
    parser.add_argument("text", type=Path, nargs="?", help="the table, or the text to make a dataset of")
    parser.add_argument("--known", type=int, default=32)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--sweep", type=Path, default=ROOT / "examples" / "h200.yaml")
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", default="tensorrt")
    parser.add_argument("--limit-seconds", type=float, default=540)
    parser.add_argument("--measured", type=Path, default=MEASURED)
    parser.add_argument("--kept", type=Path, default=RESULTS / "device-model.json")
    options = parser.parse_args()
    if options.what != "evaluate" and options.text is None:
        parser.error(f"{options.what} needs a file")
    if options.what == "measure":
        measure(options)
        return 0
    if options.what == "table":
        trials, name = of_table(options.text), options.text.stem
    else:
        rows = json.loads(options.measured.read_text())["trials"]
        trials = [measured(row["id"], row["configuration"], row["metrics"]) for row in rows]
        name = options.measured.stem
    found = {name: evaluate(trials, options.known, options.splits)}
    known = json.loads(options.kept.read_text()) if options.kept.exists() else {"machine": machine()}
    write(known | found, options.kept)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
