"""The hashes of documents and of points of theirs: what stored sweeps are compared by, and reused by."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layers.results_version import RESULTS_VERSION
from layers.space.document import PointError, Rejection, SweepDocument, parse_document
from service.common.hashing import canonical_hash
from service.leases.reuse_keys import reuse_key
from service.sweeps import documents
from tests.golden.sampled_points import document

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
POINTS = 3

_DATASETS: dict[str, dict[str, Any]] = {
    "letters": {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}},
    "python-topics": {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 256}},
    "tinyshakespeare": {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 65}},
    "digits": {
        "task": "classification",
        "tokenizer": None,
        "facts": {"vocabulary_size": 17, "classes": 10, "sequence_length": 64, "labels": [str(n) for n in range(10)]},
    },
    "pronunciation": {
        "task": "seq2seq",
        "tokenizer": "char",
        "facts": {
            "vocabulary_size": 42,
            "source_vocabulary_size": 29,
            "source_length": 20,
            "target_length": 20,
            "pad_id": 0,
            "start_id": 1,
            "end_id": 2,
        },
    },
}

_TARGET_KEY = "onnxruntime 1.32.0 on Test CPU"
SPELLINGS: dict[str, Any] = {
    "name": "Größe ≥ 3",
    "task": "causal_lm",
    "dataset": "letters",
    "model": {
        "num_layers": 2,
        "hidden_size": {"min": 32, "max": 96, "step": 32},
        "attention": {"num_attention_heads": 2, "relative_attention": True, "num_buckets": 16},
        "norm": {"kind": "RmsNorm", "eps": 1e-6},
        "mlp": {"ffn_hidden_size": {"derived": "floor(hidden_size * 2.5)"}},
        "dtype": {"values": ["float32", "float16"]},
    },
    "training": {"steps": 7, "dropout": {"min": 0, "max": 0.3, "step": 0.1}, "learning_rate": 1},
    "inference": {"batch_size": 1, "sequence_length": 16},
    "objectives": [{"metric": "memory_bytes"}],
    "search": {"seed": 3},
}
"""Integers where numbers are meant, a shorthand, steps that binary fractions do not hit, letters beyond ASCII."""


def hashed_documents() -> dict[str, Mapping[str, Any]]:
    """The examples, those whose points are recorded, and one of spellings."""
    written: dict[str, Mapping[str, Any]] = {
        path.stem: documents.read(path.read_bytes(), "application/yaml") for path in sorted(EXAMPLES.glob("*.yaml"))
    }
    written |= {kind: document(kind, "auto") for kind in ("flat", "conditional", "per_layer")}
    written["spellings"] = SPELLINGS
    return written


def hashes(written: Mapping[str, Any]) -> dict[str, Any]:
    """Of the document as it is stored, and of its first points that break nothing, drawn with one seed."""
    sweep = parse_document(written, find_dataset=_DATASETS.get)
    return {
        "document": canonical_hash(sweep.normalized),
        "points": [
            {
                "point_hash": canonical_hash(configuration),
                "reuse_key": reuse_key(
                    project="default",
                    configuration=configuration,
                    dataset_sha256=None if sweep.dataset is None else "a" * 64,
                    target_key=_TARGET_KEY,
                    results_version=RESULTS_VERSION,
                ),
            }
            for configuration in _configurations(sweep)
        ],
    }


def _configurations(sweep: SweepDocument) -> list[dict[str, Any]]:
    source, found = random.Random(0), list[dict[str, Any]]()
    for _ in range(1000):
        try:
            completed = sweep.space.complete_or_reject(sweep.space.resolve(_drawn(sweep, source)))
        except PointError:
            continue
        if not isinstance(completed, Rejection):
            found.append(sweep.space.configured(completed))
        if len(found) == POINTS:
            return found
    raise AssertionError(f"{sweep.name!r} has hardly a point that can become a trial")


def _drawn(sweep: SweepDocument, source: random.Random) -> dict[str, Any]:
    """A point of which no float has more than three digits: processors differ in the last ones of an exponential."""
    drawn = sweep.space.sample(source)
    continuous = {parameter.name for parameter in sweep.space.open if parameter.size is None}
    return {name: float(f"{value:.3g}") if name in continuous else value for name, value in drawn.items()}
