"""Addition modulo 97 with half of the table, through the whole service: does a Transformer that memorizes it
find the rule?

Power et al. 2022 (arXiv 2201.02177, appendix A.1) train 2 layers, 4 heads, width 128 on half of the 97 x 97 equations:
AdamW, learning rate 1e-3 after 10 steps of warm-up, betas 0.9 and 0.98, batch 512, at most 100,000 steps. They report
that with weight decay 1 validation accuracy passes 99 % within the budget, long after training accuracy, and that
weight decay is what helps most. Here an equation is a row of three tokens (=, a, b) and its answer the class. What
differs: tokens see both ways, norms stand as in nanoGPT, and far fewer steps are taken (`--steps`).

Runs a service and a worker of its own on a throw-away database: one trial a seed with weight decay 1, and one with 0
beside them, all of one sweep. Prints each trial and one line of JSON last.

    python -m benchmarks.end_to_end.modular_arithmetic [--seeds 3] [--steps 10000] [--seconds 300] [--modulus 97]
        [--share 0.5] [--out benchmarks/results/modular-arithmetic.json] [--worker-options ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.processes import machine, running_service, running_worker
from layersweep import Client

PUBLISHED = 0.99
"""Validation accuracy that is passed with half of the table and weight decay 1."""


def equations(modulus: int, path: Path) -> None:
    """The whole table of a + b as rows of the tokens =, a, b, with the sum as the class."""
    first, second = np.divmod(np.arange(modulus * modulus), modulus)
    tokens = np.stack([np.full_like(first, modulus), first, second], axis=1)
    np.savez(path, tokens=tokens.astype(np.int32), labels=((first + second) % modulus).astype(np.int32))


def document(options: argparse.Namespace) -> dict[str, Any]:
    """The published model with weight decay and seed open: a grid of them."""
    return {
        "name": f"addition modulo {options.modulus}",
        "task": "classification",
        "dataset": "addition",
        "model": {
            "num_layers": 2,
            "hidden_size": 128,
            "norm_position": "pre",
            "pooling": "first",
            "attention": {
                "num_attention_heads": 4,
                "attention_mask_type": "bidirectional",
                "position_embedding_type": "learned_absolute",
            },
            "mlp": {"kind": "MLP", "ffn_hidden_size": 512, "hidden_act": "relu"},
            "norm": {"kind": "LayerNorm"},
        },
        "training": {
            "steps": options.steps,
            "batch_size": 512,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-3,
            "warmup_steps": 10,
            "beta1": 0.9,
            "beta2": 0.98,
            "weight_decay": {"values": [1.0, 0.0]},
            "gradient_clip": 0.0,
            "eval_every": max(1, options.steps // 20),
            "seed": {"min": 0, "max": options.seeds - 1} if options.seeds > 1 else 0,
        },
        "rules": ["training.weight_decay == 1.0 or training.seed == 0"] if options.seeds > 1 else [],
        "inference": {"batch_size": 64},
        "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
        "budget": {"trials": options.seeds + 1, "wall_seconds": options.seconds},
        "search": {"sampler": "grid", "reuse": False},
    }


def outcome(detail: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a trial."""
    chosen, metrics = detail["parameters"], detail["metrics"]
    return {
        "weight_decay": chosen["training.weight_decay"],
        "seed": chosen.get("training.seed", 0),
        "state": detail["state"],
        "reason": detail["reason"],
        "metrics": metrics,
        "curve": detail.get("curve"),
        "training": detail["measurements"].get("training"),
        "environment": detail["measurements"].get("environment"),
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--modulus", type=int, default=97)
    arguments.add_argument("--share", type=float, default=0.5, help="of the table that is trained on")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=10_000)
    arguments.add_argument("--seconds", type=int, default=300, help="after which no further trial begins")
    arguments.add_argument(
        "--worker-options", nargs=argparse.REMAINDER, default=[], help="of `layersweep worker`; last"
    )
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()

    trials: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        running_service(folder := Path(name)) as url,
        running_worker(url, folder, options=options.worker_options),
    ):
        client = Client(url)
        equations(options.modulus, folder / "addition.npz")
        client.add_dataset(
            "addition", folder / "addition.npz", task="classification", validation=round(1 - options.share, 6)
        )
        sweep = client.submit(document(options))
        sweep.wait()
        for trial in sweep.trials():
            found = outcome(client.trial(trial["id"]))
            trials.append(found)
            print(
                f"weight decay {found['weight_decay']}, seed {found['seed']}: {found['state']}, validation accuracy "
                f"{found['metrics'].get('accuracy')}, losses {found['metrics'].get('training_loss')} in training, "
                f"{found['metrics'].get('validation_loss')} in validation",
                flush=True,
            )
    result = {
        "benchmark": "modular_arithmetic",
        "command": "python -m benchmarks.end_to_end.modular_arithmetic " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "published": {"accuracy": PUBLISHED, "source": "Power et al. 2022, arXiv 2201.02177"},
        "document": document(options),
        "trials": trials,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    decayed = [trial["metrics"].get("accuracy", 0.0) for trial in trials if trial["weight_decay"] == 1.0]
    print(
        json.dumps(
            {"published": PUBLISHED, "accuracy": decayed, "reached": bool(decayed) and min(decayed) >= PUBLISHED}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
