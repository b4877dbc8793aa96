"""The sweeps of the recorded service: each task once, and each way in which a sweep can stand."""

from __future__ import annotations

from typing import Any

from tests.service.sweep_driver import DOCUMENT

LANGUAGE: dict[str, Any] = DOCUMENT | {
    "name": "language",
    "model": DOCUMENT["model"] | {"num_layers": {"min": 1, "max": 6}, "hidden_size": {"values": [32, 64, 80]}},
    "training": {"steps": 10, "batch_size": 4, "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "constraints": ["parameter_count <= 5e5", "latency_ms_p99 <= 5.5", "validation_loss <= 2.5"],
    "budget": {"trials": 24, "parallel": 2, "failures": 10},
}

CLASSIFICATION: dict[str, Any] = {
    "name": "opinions",
    "task": "classification",
    "dataset": "opinions",
    "model": {
        "num_layers": {"values": [1, 2]},
        "hidden_size": {"values": [32, 48]},
        "attention": {"num_attention_heads": 2},
    },
    "training": {"steps": 10, "batch_size": 4, "learning_rate": 1e-3},
    "inference": {"batch_size": 1},
    "objectives": [
        {"metric": "accuracy", "goal": "maximize"},
        {"metric": "latency_ms_p50", "goal": "minimize"},
    ],
    "budget": {"trials": 4, "parallel": 1},
    "search": {"sampler": "grid", "seed": 0, "reuse": False},
}

PROBE: dict[str, Any] = {
    "name": "shapes",
    "task": "probe",
    "model": {
        "kind": {"values": ["linear", "mlp"]},
        "linear": {
            "in_features": {"value": 64, "when": "kind == 'linear'"},
            "out_features": {"values": [64, 128], "when": "kind == 'linear'"},
        },
        "hidden_size": {"values": [64, 96], "when": "kind == 'mlp'"},
        "mlp": {"ffn_hidden_size": {"value": 128, "when": "kind == 'mlp'"}},
    },
    "inference": {"batch_size": 2, "sequence_length": 16},
    "objectives": [
        {"metric": "latency_ms_p50", "goal": "minimize"},
        {"metric": "parameter_count", "goal": "maximize"},
    ],
    "budget": {"trials": 4, "parallel": 1},
    "search": {"sampler": "grid", "seed": 0, "reuse": False},
}

SEQUENCES: dict[str, Any] = {
    "name": "sequences",
    "task": "seq2seq",
    "dataset": "pairs",
    "model": {
        "num_layers": {"values": [1, 2]},
        "num_encoder_layers": 1,
        "hidden_size": {"values": [32, 48]},
        "attention": {"num_attention_heads": 2},
    },
    "training": {"steps": 10, "batch_size": 4, "learning_rate": 1e-3},
    "inference": {"batch_size": 1},
    "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
    "budget": {"trials": 4, "parallel": 1},
    "search": {"sampler": "tpe", "seed": 0, "reuse": False},
}

FAILING: dict[str, Any] = LANGUAGE | {
    "name": "failing",
    "model": {
        "num_layers": {"values": [2, 4]},
        "hidden_size": 80,
        "attention": {"num_attention_heads": {"values": [2, 4]}},
    },
    "budget": {"trials": 4, "parallel": 1, "failures": 2},
    "constraints": [],
}

PAUSED: dict[str, Any] = PROBE | {"name": "paused", "search": {"sampler": "qmc", "seed": 3, "reuse": False}}
