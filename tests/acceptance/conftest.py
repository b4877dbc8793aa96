"""Fixtures of the tests that run the product as an operator does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployment import Deployment


@pytest.fixture
def deployment(database: Any, database_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """Nothing runs yet; the schema is there (`database` upgraded it)."""
    it = Deployment(database_url, tmp_path)
    yield it
    it.close()


@pytest.fixture
def small_sweep() -> dict[str, Any]:
    """A causal language model so small that a trial takes seconds."""
    return {
        "name": "small",
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": {
            "num_layers": 1,
            "hidden_size": {"values": [16, 32]},
            "attention": {"num_attention_heads": {"values": [1, 2, 4]}},
            "mlp": {"kind": {"values": ["MLP", "GatedMLP"]}, "ffn_hidden_size": {"derived": "2 * hidden_size"}},
        },
        "training": {"steps": 20, "batch_size": 4, "learning_rate": {"min": 1e-3, "max": 1e-2, "log": True}},
        "inference": {"batch_size": 8, "sequence_length": 64},
        "objectives": [
            {"metric": "validation_loss", "goal": "minimize"},
            {"metric": "parameter_count", "goal": "minimize"},
        ],
        "budget": {"trials": 3, "parallel": 1},
        "search": {"sampler": "random", "seed": 7, "reuse": False},
    }
