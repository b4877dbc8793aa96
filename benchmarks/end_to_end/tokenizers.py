"""One text as bytes, characters and parts of words: which tokenizer does a model of one size compress best with?

Runs a service and a CPU worker of its own on a throw-away database. Registers the text once for each tokenizer, cut at
the same places, and sweeps one trial of the same model (layers, width, heads; the tied embedding follows the
vocabulary) with the same steps of the same number of tokens. Prints bits per byte side by side, and one line of JSON
last. A token of bpe:N is several bytes: for the same steps such a model has read more text.

    python -m benchmarks.end_to_end.tokenizers TEXT [--steps 300] [--tokenizers byte char bpe:512 bpe:8192]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.processes import machine, running_service, running_worker
from layersweep import Client

METRICS = ("bits_per_byte", "validation_loss", "parameter_count", "train_seconds", "latency_ms_p50")


def document(dataset: str, steps: int) -> dict[str, Any]:
    return {
        "name": dataset,
        "task": "causal_lm",
        "dataset": dataset,
        "model": {
            "num_layers": 2,
            "hidden_size": 64,
            "tie_embeddings": True,
            "attention": {"num_attention_heads": 4, "attention_mask_type": "causal"},
        },
        "training": {"steps": steps, "batch_size": 16, "learning_rate": 2e-3},
        "inference": {"batch_size": 1, "sequence_length": 64},
        "objectives": [{"metric": "bits_per_byte"}],
        "budget": {"trials": 1},
    }


def run(client: Client, text: Path, tokenizer: str, steps: int) -> dict[str, Any]:
    name = tokenizer.replace(":", "-")
    record = client.add_dataset(name, text, tokenizer=tokenizer, validation=0.1)
    sweep = client.submit(document(name, steps))
    sweep.wait()
    (trial,) = sweep.trials()
    validation = record["parts"]["validation"]
    baselines = record["profile"]["baselines_nats"]
    best = min(baselines, key=lambda each: baselines[each])
    per_byte = validation["tokens"] / validation["bytes"] / 0.6931471805599453
    return {
        "tokenizer": tokenizer,
        "vocabulary_size": record["facts"]["vocabulary_size"],
        "bytes_per_token": round(validation["bytes"] / validation["tokens"], 3),
        "baseline": best,
        "baseline_bits_per_byte": round(baselines[best] * per_byte, 4),
        "state": trial["state"],
        **{name: trial["metrics"].get(name) for name in METRICS},
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("text", type=Path)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--tokenizers", nargs="+", default=["byte", "char", "bpe:512", "bpe:8192"])
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder)) as url,
        running_worker(url, Path(folder)),
        Client(url) as client,
    ):
        rows: list[dict[str, Any]] = []
        for tokenizer in options.tokenizers:
            rows.append(run(client, options.text, tokenizer, options.steps))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "benchmark": "tokenizers",
        "command": "python -m benchmarks.end_to_end.tokenizers "
        + " ".join(sys.argv[1:]).replace(os.fspath(options.text), "TEXT"),
        "machine": machine(),
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    complete = all(row["bits_per_byte"] is not None for row in rows)
    print(json.dumps({"bits_per_byte": {row["tokenizer"]: row["bits_per_byte"] for row in rows}, "passed": complete}))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
