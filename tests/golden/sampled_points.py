"""The first points of every sampler for three documents, as the scheduler makes them and a pretend worker ends them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

from service.database.sessions import Database
from service.settings import Settings
from tests.service.sweep_driver import Driver, Outcome

SAMPLERS = ("tpe", "nsga2", "surrogate", "gp", "qmc", "random", "grid")
POINTS = 30
POINTS_OF_GP = {"flat": 9, "conditional": 6, "per_layer": 4}
"""Up to its first two suggestions that are not random, after ten with the refused ones: they take it a second each."""
SLOWEST_MS = 36

_TRAINING = {"steps": 10, "batch_size": 4}
_LEARNING_RATES = {"min": 1e-4, "max": 1e-2, "log": True}
_LEARNING_RATES_OF_A_GRID = {"values": [1e-4, 1e-3, 1e-2]}

_MODELS: dict[str, dict[str, Any]] = {
    "flat": {
        "num_layers": {"min": 1, "max": 6},
        "hidden_size": {"values": [32, 48, 64, 96]},
        "attention": {
            "num_attention_heads": {"values": [2, 4]},
            "position_embedding_type": {"values": ["learned_absolute", "rope_gpt_neox"]},
        },
    },
    "conditional": {
        "num_layers": {"min": 1, "max": 4},
        "hidden_size": {"values": [32, 48, 64]},
        "attention": {
            "num_attention_heads": {"values": [2, 4, 6]},
            "position_embedding_type": {"values": ["learned_absolute", "relative"]},
            "num_buckets": {"values": [8, 16], "when": "attention.position_embedding_type == 'relative'"},
        },
        "norm": {
            "kind": {"values": ["LayerNorm", "RmsNorm"]},
            "eps": {"values": [1e-6, 1e-5], "when": "norm.kind == 'RmsNorm'"},
        },
        "mlp": {
            "kind": {"values": ["MLP", "GatedMLP"]},
            "ffn_hidden_size": {
                "derived": "4 * hidden_size if mlp.kind == 'MLP' else round_up(8 * hidden_size / 3, 32)"
            },
        },
    },
    "per_layer": {
        "num_layers": {"min": 1, "max": 3},
        "hidden_size": {"values": [32, 64]},
        "attention": {"num_attention_heads": {"values": [2, 4]}},
        "mlp": {
            "ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True},
            "bias": {"derived": "mlp.ffn_hidden_size > 32", "per_layer": True},
        },
    },
}
_RULES = {
    "flat": [],
    "conditional": ["hidden_size % attention.num_attention_heads == 0"],
    "per_layer": ["mlp.ffn_hidden_size <= 2 * hidden_size"],
}
DOCUMENTS = tuple(_MODELS)


def document(kind: str, sampler: str) -> dict[str, Any]:
    """The sweep document of this kind for a sampler; a grid has no ranges."""
    rates = _LEARNING_RATES_OF_A_GRID if sampler == "grid" else _LEARNING_RATES
    return {
        "name": kind,
        "task": "causal_lm",
        "dataset": "letters",
        "model": _MODELS[kind],
        "training": {**_TRAINING, "learning_rate": rates},
        "inference": {"batch_size": 1, "sequence_length": 16},
        "objectives": [
            {"metric": "latency_ms_p50", "goal": "minimize"},
            {"metric": "validation_loss", "goal": "minimize"},
        ],
        "constraints": ["parameter_count <= 5e5", f"latency_ms_p99 <= {SLOWEST_MS}"],
        "rules": _RULES[kind],
        "budget": {"trials": 100, "parallel": 2, "failures": 1000},
        "search": {"sampler": sampler, "seed": 7, "reuse": False},
    }


def score(configuration: Mapping[str, Any]) -> Outcome:
    """Metrics that follow from every value of the configuration, smoothly; some are infeasible, pruned or failed."""
    latency = loss = 0.0
    for name, value in [*_sorted(configuration["model"]), *_sorted(configuration["training"])]:
        weight = zlib.crc32(name.encode()) % 97 / 97
        size = math.log1p(abs(value)) if isinstance(value, int | float) else zlib.crc32(str(value).encode()) % 13 / 13
        latency += weight * size
        loss += (1 - weight) * abs(size - 2)
    metrics = {"latency_ms_p50": latency, "latency_ms_p99": latency * 1.2}
    if latency * 1.2 > SLOWEST_MS:
        return "infeasible", metrics
    kind = int(latency * 7) % 12
    if kind in (5, 8):
        return ("pruned", metrics) if kind == 5 else ("failed", {})
    return "complete", metrics | {"validation_loss": loss}


def _sorted(section: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted((name, value) for name, value in section.items() if value is not None)


def driver(database: Database, settings: Settings) -> Driver:
    """A scheduler that is stepped by hand, over a database with the data set and a worker."""
    made = Driver(database, settings)
    made.add_dataset()
    made.worker = made.add_worker()
    return made


def points(driver: Driver, kind: str, sampler: str) -> dict[str, Any]:
    """What the sampler suggests for the document, with what was refused, and the trials that came of it."""
    sweep = driver.post(document(kind, "grid" if sampler == "grid" else "auto"))
    # One validation serves all samplers: it takes longer than thirty points.
    driver.set(sweep, sampler=sampler)
    driver.run(sweep, POINTS_OF_GP[kind] if sampler == "gp" else POINTS, score)
    driver.cancel(sweep)
    # A Gaussian process stops its search for the best point where it no longer improves: not everywhere at one float.
    digits = 2 if sampler == "gp" else 4
    return {
        "asks": [[rounded(suggestions, digits), rejection] for suggestions, rejection in driver.sequence(sweep)],
        "trials": [[trial.state, rounded(trial.parameters, digits)] for trial in driver.trials(sweep)],
    }


def chosen_sampler(driver: Driver, kind: str) -> list[str]:
    """What `sampler: auto` means for the document, and why."""
    sweep = driver.sweep(driver.post(document(kind, "auto")))
    driver.cancel(sweep.id)
    return [sweep.sampler, sweep.sampler_reason]


def rounded(values: Mapping[str, Any], digits: int = 4) -> dict[str, Any]:
    """Processors differ in the last digits of a float."""
    return {name: float(f"{value:.{digits}g}") if isinstance(value, float) else value for name, value in values.items()}
