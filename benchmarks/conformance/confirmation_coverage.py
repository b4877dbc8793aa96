"""Do a confirmation's intervals hold what they say? The confirmation repeated on different splits of Tiny Shakespeare.

Each repetition deals the text's paragraphs anew into training, validation and test splits, sweeps a few small models,
and confirms the recommended one with three seeds. Its two intervals are then tried on what they were given for:

- *one further training*: the same configuration is confirmed once more with another seed; its loss on the test split is
  to lie within.
- *expected loss on text like the split*: the same configuration is trained with the same seeds on the same training
  text, and scored on a reserve of further paragraphs three times as long; the mean is to lie within.

Both at 95 %: nine of ten repetitions are asked for. Prints one line of JSON last.

    python -m benchmarks.conformance.confirmation_coverage TEXT [--repetitions 10] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.processes import machine, running_service, running_worker
from layersweep import Client

TRAINING, VALIDATION, TEST, RESERVE = 120_000, 30_000, 30_000, 90_000
"""Characters of each split."""

DOCUMENT: dict[str, Any] = {
    "task": "causal_lm",
    "model": {
        "num_layers": 1,
        "hidden_size": {"values": [16, 24, 32]},
        "attention": {"num_attention_heads": 2},
        "mlp": {"kind": {"values": ["MLP", "GatedMLP"]}, "ffn_hidden_size": {"derived": "2 * hidden_size"}},
    },
    "training": {"steps": 80, "batch_size": 16, "learning_rate": 5e-3, "eval_every": 80},
    "inference": {"batch_size": 16, "sequence_length": 32},
    "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
    "budget": {"trials": 3},
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--repetitions", type=int, default=10)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    paragraphs = options.text.read_text().split("\n\n")
    found: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        running_service(Path(name)) as url,
        running_worker(url, Path(name)),
    ):
        client = Client(url)
        for number in range(options.repetitions):
            found.append(repeat(client, paragraphs, number))
            print(json.dumps(found[-1]), flush=True)
    held = {name: sum(each[name] for each in found) for name in ("one_more_held", "expected_held")}
    result = {
        "benchmark": "confirmation_coverage",
        "command": "python -m benchmarks.conformance.confirmation_coverage "
        + " ".join(sys.argv[1:]).replace(str(options.text), "TEXT"),
        "machine": machine(),
        "repetitions": found,
        "held": held,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    passed = min(held.values()) >= 0.9 * len(found)
    print(json.dumps({"repetitions": len(found), **held, "passed": passed}))
    return 0 if passed else 1


def repeat(client: Client, paragraphs: list[str], number: int) -> dict[str, Any]:
    """One split: the intervals, and whether they held."""
    shuffled = list(paragraphs)
    random.Random(number).shuffle(shuffled)
    text = "\n\n".join(shuffled)
    name, seen = f"split-{number}", TRAINING + VALIDATION + TEST
    splits = {"validation": VALIDATION / seen, "test": TEST / seen}
    client.add_dataset(name, text[:seen].encode(), **splits)
    sweep = client.submit({**DOCUMENT, "name": name, "dataset": name, "search": {"seed": number}}).wait()
    trial = sweep.recommendation()["trial"]
    candidate = confirmed(client, sweep, trial["number"], seeds=3)
    (another,) = confirmed(client, sweep, trial["number"], seeds=1)["runs"]
    further = another["test_loss"]

    # The same training text, validation split and seeds; the reserve in place of the test split.
    reserve = text[: TRAINING + VALIDATION] + text[seen : seen + RESERVE]
    whole = TRAINING + VALIDATION + RESERVE
    client.add_dataset(f"{name}-reserve", reserve.encode(), validation=VALIDATION / whole, test=RESERVE / whole)
    again = client.submit(pinned(sweep.recommendation()["configuration"], f"{name}-reserve")).wait()
    unseen = confirmed(client, again, 0, seeds=3)["test"]["mean"]
    one_more, expected = candidate["test"]["one_more"], candidate["test"]["expected"]
    return {
        "split": number,
        "trial": trial["parameters"],
        "validation_loss_chosen_by": trial["metrics"]["validation_loss"],
        "test": candidate["test"],
        "optimism_nats": candidate["optimism_nats"],
        "further_training_loss": further,
        "one_more_held": one_more["low"] <= further <= one_more["high"],
        "reserve_loss": unseen,
        "expected_held": expected["low"] <= unseen <= expected["high"],
    }


def confirmed(client: Client, sweep: Any, number: int, *, seeds: int) -> dict[str, Any]:
    confirmation = sweep.confirm(seeds=seeds, trials=[number])
    client.sweep(confirmation["id"]).wait()
    found = next(each for each in sweep.confirmations() if each["id"] == confirmation["id"])
    assert found["state"] == "completed", found
    return found["candidates"][0]


def pinned(configuration: dict[str, Any], dataset: str) -> dict[str, Any]:
    """A sweep of the one configuration."""
    model = {"num_layers": 1, "hidden_size": configuration["model"]["hidden_size"]}
    model["attention"] = {"num_attention_heads": 2}
    model["mlp"] = {
        "kind": configuration["model"]["mlp.kind"],
        "ffn_hidden_size": configuration["model"]["mlp.ffn_hidden_size"],
    }
    return {**DOCUMENT, "name": dataset, "dataset": dataset, "model": model, "budget": {"trials": 1}}


if __name__ == "__main__":
    sys.exit(main())
