"""Tiny Shakespeare with nanoGPT's CPU setting, through the whole service: does it reach the published loss?

The README of karpathy/nanoGPT publishes 1.88 for 4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps,
no dropout. Runs a service and a CPU worker of its own on a throw-away database, uploads the text (character level,
90/10), posts one trial a seed of the preset `nanogpt-char-cpu`, and prints one line of JSON last.

    python -m benchmarks.end_to_end.tinyshakespeare TEXT [--seeds 3] [--out benchmarks/results/tinyshakespeare.json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.processes import machine, running_service, running_worker
from layersweep import Client

PUBLISHED = 1.88
ACCEPTED = 1.95


def document(preset: dict[str, Any], seed: int) -> dict[str, Any]:
    """The preset as a sweep of one point: nothing is open, so there is one trial."""
    parts = preset["document"]
    return {
        "name": f"nanogpt-char-cpu, seed {seed}",
        "task": "causal_lm",
        "dataset": "tinyshakespeare",
        "model": parts["model"],
        "training": parts["training"] | {"seed": seed},
        "inference": {"batch_size": 12, "sequence_length": 64},
        "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
        "budget": {"trials": 1},
        "search": {"sampler": "random", "reuse": False},
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()

    trials: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder)) as url,
        running_worker(url, Path(folder)),
    ):
        client = Client(url)
        client.add_dataset("tinyshakespeare", options.text, task="causal_lm", tokenizer="char", validation=0.1)
        (preset,) = [preset for preset in client.presets() if preset["name"] == "nanogpt-char-cpu"]
        for seed in range(options.seeds):
            sweep = client.submit(document(preset, seed))
            sweep.wait()
            (trial,) = sweep.trials()
            detail = client.trial(trial["id"])
            trials.append(
                {
                    "seed": seed,
                    "state": detail["state"],
                    "reason": detail["reason"],
                    "target": detail["measurements"]["environment"],
                    "metrics": detail["metrics"],
                    "training": detail["measurements"]["training"],
                }
            )
            print(
                f"seed {seed}: {detail['state']}, validation_loss {detail['metrics'].get('validation_loss')}",
                flush=True,
            )
    result = {
        "benchmark": "tinyshakespeare",
        "command": "python -m benchmarks.end_to_end.tinyshakespeare "
        + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT"),
        "machine": machine(),
        "published": PUBLISHED,
        "preset": preset["document"],
        "trials": trials,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    losses = [trial["metrics"].get("validation_loss", float("inf")) for trial in trials]
    gaps = [abs(trial["metrics"].get("precision_gap", float("inf"))) for trial in trials]
    passed = max(losses) <= ACCEPTED and max(gaps) < 1e-3
    print(json.dumps({"published": PUBLISHED, "validation_loss": losses, "precision_gap": gaps, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
