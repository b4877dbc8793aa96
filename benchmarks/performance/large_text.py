"""A large text through the whole service: how long it takes to register and to sweep, and with how much memory.

Writes a text of made-up words (frequencies by Zipf's law, lines of sixty characters and more), and for each tokenizer
registers it with a service of its own and sweeps one trial with a CPU worker of its own. Prints one line of JSON last:
seconds, sizes, and the peaks of memory as /proc has them.

    python -m benchmarks.performance.large_text [--megabytes 1000] [--tokenizers byte char bpe:8192] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.memory import PeakMemory
from benchmarks.support.processes import machine, running_service, running_worker
from layersweep import Client

WORDS = 60_000
WORDS_AT_ONCE = 200_000
WORDS_A_LINE = 12
SEED = 0
LIMITS_MB = {"serve": 500, "worker": 1500}
ROOM = 1 << 24


def write_text(path: Path, size_bytes: int) -> None:
    """At least so many bytes of text, the same every time."""
    generator = np.random.default_rng(SEED)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxzéü"))
    weights = 1 / np.arange(1, len(letters) + 1)
    words = np.array(
        [
            "".join(generator.choice(letters, length, p=weights / weights.sum()))
            for length in generator.integers(1, 11, WORDS)
        ]
    )
    shares = 1 / np.arange(1, WORDS + 1)
    shares /= shares.sum()
    written = 0
    with path.open("wb") as file:
        while written < size_bytes:
            chosen = words[generator.choice(WORDS, WORDS_AT_ONCE, p=shares)]
            lines = (" ".join(chosen[at : at + WORDS_A_LINE]) for at in range(0, WORDS_AT_ONCE, WORDS_A_LINE))
            written += file.write(("\n".join(lines) + ".\n").encode())


def document(dataset: str) -> dict[str, Any]:
    return {
        "name": dataset,
        "task": "causal_lm",
        "dataset": dataset,
        "model": {
            "num_layers": 1,
            "hidden_size": 64,
            "attention": {"num_attention_heads": 2, "attention_mask_type": "causal"},
        },
        "training": {"steps": 30, "batch_size": 16},
        "inference": {"batch_size": 4, "sequence_length": 64},
        "objectives": [{"metric": "bits_per_byte"}],
        "budget": {"trials": 1},
    }


def run(folder: Path, text: Path, tokenizer: str, validation: float) -> dict[str, Any]:
    """Register and sweep the text, in a folder of its own."""
    size = text.stat().st_size
    folder.mkdir()
    environment = {"LAYERSWEEP_MAX_UPLOAD_BYTES": str(size + ROOM)}
    with (
        PeakMemory(os.getpid()).watching() as memory,
        running_service(folder, environment) as url,
        Client(url) as client,
    ):
        started = time.monotonic()
        name = tokenizer.replace(":", "-")
        record = client.add_dataset(name, text, tokenizer=tokenizer, validation=validation)
        registered = time.monotonic()
        with running_worker(url, folder):
            sweep = client.submit(document(name))
            sweep.wait()
            (trial,) = sweep.trials()
            swept = time.monotonic()
    return {
        "tokenizer": tokenizer,
        "vocabulary_size": record["facts"]["vocabulary_size"],
        "tokens": {split: part["tokens"] for split, part in record["parts"].items()},
        "register_seconds": round(registered - started, 1),
        "sweep_seconds": round(swept - registered, 1),
        "state": trial["state"],
        "bits_per_byte": trial["metrics"].get("bits_per_byte"),
        "memory": memory.figures(),
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=int, default=1000)
    arguments.add_argument("--tokenizers", nargs="+", default=["byte", "char", "bpe:8192"])
    arguments.add_argument("--validation", type=float, default=0.001)
    arguments.add_argument("--folder", type=Path, help="where there is room for some times the text")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text = Path(folder) / "text"
        write_text(text, options.megabytes * 1_000_000)
        rows: list[dict[str, Any]] = []
        for tokenizer in options.tokenizers:
            rows.append(run(Path(folder) / tokenizer.replace(":", "-"), text, tokenizer, options.validation))
            print(json.dumps(rows[-1]), flush=True)
        size = text.stat().st_size
    result = {
        "benchmark": "large_text",
        "command": f"python -m benchmarks.performance.large_text --megabytes {options.megabytes}",
        "machine": machine(),
        "text_bytes": size,
        "validation": options.validation,
        "limits_mb": LIMITS_MB,
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    within = all(row["memory"][name]["largest_process_mb"] < limit for row in rows for name, limit in LIMITS_MB.items())
    print(json.dumps({"rows": rows, "within_limits": within}))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
