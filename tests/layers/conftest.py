"""Models to try, by the values that a document would give."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from layers.completion import complete
from layers.declarations import attention, mlp, normalization
from layers.declarations.model import broken_rules
from layers.parameter import Scalar

FACTS = {"vocabulary_size": 29, "sequence_length": 12}


@pytest.fixture
def completed() -> Callable[..., dict[str, Scalar]]:
    """A completed small model; `completed({"mlp.kind": "GatedMLP"})` changes it."""

    def make(changes: dict[str, Any] | None = None, facts: dict[str, Any] = FACTS) -> dict[str, Scalar]:
        values = {"num_layers": 2, "hidden_size": 32, "attention.num_attention_heads": 4, **(changes or {})}
        return complete("causal_lm", values, facts)

    return make


def random_models(seed: int) -> Iterator[dict[str, Scalar]]:
    """Models that break no rule, drawn over everything that can be declared."""
    draw = random.Random(seed)
    while True:
        position = draw.choice(attention.POSITION_TYPES)
        norm = draw.choice(normalization.KINDS)
        values: dict[str, Any] = {
            "num_layers": draw.randint(1, 3),
            "hidden_size": draw.choice([16, 24, 32, 48]),
            "norm_position": draw.choice(["pre", "post"]),
            "tie_embeddings": draw.choice([True, False]),
            "attention.num_attention_heads": draw.choice([1, 2, 3, 4]),
            "attention.position_embedding_type": position,
            "attention.bias": draw.choice([True, False]),
            "attention.qk_layernorm": draw.choice([True, False]),
            "attention.q_scaling": draw.choice([0.5, 1.0, 2.0]),
            "mlp.kind": draw.choice(mlp.KINDS),
            "mlp.hidden_act": draw.choice(mlp.ACTIVATIONS),
            "mlp.bias": draw.choice([True, False]),
            "norm.kind": norm,
            "norm.elementwise_affine": draw.choice([True, False]),
        }
        if draw.random() < 0.5:
            values["attention.num_kv_heads"] = draw.choice([1, 2])
        if draw.random() < 0.5:
            values["attention.attention_head_size"] = draw.choice([4, 8, 12])
        if draw.random() < 0.5:
            values["mlp.ffn_hidden_size"] = draw.choice([20, 40])
        if draw.random() < 0.3:
            values["embedding.embedding_dim"] = draw.choice([8, 16])
        if draw.random() < 0.3:
            values["embedding.num_embeddings"] = 32
        if draw.random() < 0.3:
            values["attention.max_position_embeddings"] = 20
        if position in attention.ROTARY_TYPES:
            values["attention.rotary_embedding_percentage"] = draw.choice([0.5, 1.0])
        if norm != "LayerNorm":
            values["norm.num_groups"] = draw.choice([1, 2, 4])
        if norm != "RmsNorm" and values["norm.elementwise_affine"]:
            values["norm.bias"] = draw.choice([True, False])
        model = complete("causal_lm", values, FACTS)
        if not broken_rules(model):
            yield model


@pytest.fixture
def models() -> Callable[[int], Iterator[dict[str, Scalar]]]:
    return random_models
