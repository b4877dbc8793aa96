"""One decision from data to report, on Tiny Shakespeare and the CPU.

Registers the text (characters; 91 % training, 4 % validation, 5 % test), runs the sweep of
`examples/shakespeare-decision.yaml` (latency, size and loss; a latency and a parameter constraint; a published start),
confirms the best trials with further seeds on the test split, runs the recommended trial's artifacts outside of the
service, writes the study for Optuna, and writes the report. Prints one line of JSON last.

    python -m benchmarks.end_to_end.determining_parameters TEXT [--trials 32] [--seeds 3] [--report
    docs/example-report.html]
        [--out benchmarks/results/determining_parameters.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import yaml

from benchmarks.support.processes import ROOT, machine, running_service, running_worker
from layersweep import Client
from layersweep.exports.optuna import write_study

DOCUMENT = ROOT / "examples" / "shakespeare-decision.yaml"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--trials", type=int)
    arguments.add_argument("--steps", type=int)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--report", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    document = yaml.safe_load(DOCUMENT.read_text())
    document["budget"]["trials"] = options.trials or document["budget"]["trials"]
    document["training"]["steps"] = options.steps or document["training"]["steps"]
    with (
        tempfile.TemporaryDirectory() as name,
        running_service(Path(name)) as url,
        running_worker(url, Path(name)),
    ):
        result = decide(Client(url), Path(name), document, options)
    result: dict[str, Any] = {
        "benchmark": "determining_parameters",
        "command": "python -m benchmarks.end_to_end.determining_parameters "
        + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT"),
        "machine": machine(),
        **result,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    passed = all(result["checks"].values())
    print(json.dumps({"checks": result["checks"], "passed": passed}))
    return 0 if passed else 1


def decide(client: Client, folder: Path, document: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Everything from the data to the report; what each step found."""
    client.add_dataset("tinyshakespeare", options.text, tokenizer="char", validation=0.04, test=0.05)
    sweep = client.submit(document)
    sweep.wait(on_progress=lambda record: print(record["state"], record["progress"]["complete"], flush=True))
    confirmation = sweep.confirm(seeds=options.seeds, candidates=3)
    client.sweep(confirmation["id"]).wait()
    (confirmed,) = sweep.confirmations()
    recommendation = sweep.recommendation()
    trial = recommendation["trial"]
    ran = run_artifacts(client, trial["trial"], folder / "artifacts")
    study = write_study(sweep, f"sqlite:///{folder / 'study.db'}", name="decision")
    loaded = optuna.load_study(study_name="decision", storage=f"sqlite:///{folder / 'study.db'}")
    if options.report:
        options.report.write_text(sweep.report("html"))
        options.report.with_suffix(".md").write_text(sweep.report("markdown"))
    reported = trial["metrics"]["validation_loss"]
    checks = {
        "30 trials or more": sweep.record["progress"]["trials"] >= 30,
        "confirmed": confirmed["state"] == "completed",
        "optimism measured": confirmed["optimism_nats"] is not None,
        "artifacts reproduce the validation loss within 1e-6": ran is not None
        and abs(ran["validation_loss"] / reported - 1) <= 1e-6,
        "Optuna's best_trials are the front": {each.number for each in loaded.best_trials}
        == {row["number"] for row in sweep.front()},
    }
    return {
        "progress": sweep.record["progress"],
        "recommended": trial,
        "says": recommendation["certainty"]["says"],
        "confirmation": confirmed,
        "artifacts": ran,
        "optuna_trials": len(study.trials),
        "checks": checks,
    }


def run_artifacts(client: Client, trial: str, folder: Path) -> dict[str, Any] | None:
    """What the downloaded engine gives outside of the service; None where the trial left nothing."""
    if not client.artifacts(trial):
        return None
    client.download_artifacts(trial, folder)
    ran = subprocess.run(
        [sys.executable, "-I", str(folder / "run.py"), str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


if __name__ == "__main__":
    sys.exit(main())
