"""Encoders against the `transformers` package: poolers of several kinds, and layers that share weights.

Configured small, with random weights: nothing is downloaded. ModernBERT: tests/layers/checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.layers.modules.transformers_weights import (
    VOCABULARY,
    B,
    T,
    Weights,
    assert_same,
    assert_same_in_onnx,
    filled,
    joined,
    randomized,
    renamed,
    tokens,
)

FACTS = {"vocabulary_size": VOCABULARY, "classes": 5, "sequence_length": T}
BOTH = ("weight", "bias")
SIZES = [(24, 3, 37), (25, 5, 64), (42, 7, 51)]
"""Width, heads and feed-forward width."""
DROPPED = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
INPUTS = (tokens(B, T), (torch.arange(T) < torch.tensor([[T], [8], [1]])).int())

Pair = tuple[nn.Module, nn.Module]
"""Ours, and theirs with the same weights."""


def post(size: tuple[int, int, int], **changes: Any) -> dict[str, Any]:
    width, heads, inner = size
    return {
        "num_layers": 2,
        "hidden_size": width,
        "norm_position": "post",
        "has_embedding_layernorm": True,
        "pooling": "pooler",
        "attention.num_attention_heads": heads,
        "attention.max_position_embeddings": 32,
        "mlp.ffn_hidden_size": inner,
        "norm.eps": 1e-12,
        **changes,
    }


def block(
    state: Mapping[str, Tensor], ours: str, theirs: str, heads: tuple[str, str, str], names: Mapping[str, str]
) -> Weights:
    """A layer's weights: queries, keys and values apart there, and the rest by name."""
    weights = renamed(state, {f"{ours}.{our}": f"{theirs}.{their}" for our, their in names.items()}, suffixes=BOTH)
    for suffix in BOTH:
        weights[f"{ours}.attention.qkv.{suffix}"] = joined(state, *(f"{theirs}.{head}.{suffix}" for head in heads))
    return weights


def distilbert(size: tuple[int, int, int]) -> Pair:
    width, heads, inner = size
    config = transformers.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=width,
        n_layers=2,
        n_heads=heads,
        hidden_dim=inner,
        max_position_embeddings=32,
        num_labels=5,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
    )
    theirs = randomized(transformers.DistilBertForSequenceClassification(config))
    state, table = theirs.state_dict(), "distilbert.embeddings"
    weights = renamed(
        state,
        {
            "embedding.table": f"{table}.word_embeddings",
            "stack.position_embedding": f"{table}.position_embeddings",
        },
    ) | renamed(
        state,
        {"stack.embedding_layernorm": f"{table}.LayerNorm", "pooler": "pre_classifier", "classifier": "classifier"},
        suffixes=BOTH,
    )
    names = {
        "attention.dense": "attention.out_lin",
        "input_layernorm": "sa_layer_norm",
        "mlp.fc": "ffn.lin1",
        "mlp.proj": "ffn.lin2",
        "post_layernorm": "output_layer_norm",
    }
    products = ("attention.q_lin", "attention.k_lin", "attention.v_lin")
    for i in range(2):
        weights |= block(state, f"stack.layers.{i}", f"distilbert.transformer.layer.{i}", products, names)
    return filled("classification", post(size, pooler_act="relu"), FACTS, weights), theirs


BERT_NAMES = {
    "attention.dense": "attention.output.dense",
    "input_layernorm": "attention.output.LayerNorm",
    "mlp.fc": "intermediate.dense",
    "mlp.proj": "output.dense",
    "post_layernorm": "output.LayerNorm",
}
BERT_PRODUCTS = ("attention.self.query", "attention.self.key", "attention.self.value")


def embedded(state: Mapping[str, Tensor], table: str) -> Weights:
    """Embeddings of BERT and its like: all tokens are of the first type, whose vector is added to every position's."""
    positions, types = (state[f"{table}.{name}_embeddings.weight"] for name in ("position", "token_type"))
    return {
        "stack.position_embedding.weight": positions + types[0],
        **renamed(state, {"embedding.table": f"{table}.word_embeddings"}),
        **renamed(state, {"stack.embedding_layernorm": f"{table}.LayerNorm"}, suffixes=BOTH),
    }


def electra(size: tuple[int, int, int]) -> Pair:
    width, heads, inner = size
    config = transformers.ElectraConfig(
        vocab_size=VOCABULARY,
        embedding_size=width,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=32,
        num_labels=5,
        **DROPPED,
    )
    theirs = randomized(transformers.ElectraForSequenceClassification(config))
    state = theirs.state_dict()
    heads_of = {"pooler": "classifier.dense", "classifier": "classifier.out_proj"}
    weights = embedded(state, "electra.embeddings") | renamed(state, heads_of, suffixes=BOTH)
    for i in range(2):
        weights |= block(state, f"stack.layers.{i}", f"electra.encoder.layer.{i}", BERT_PRODUCTS, BERT_NAMES)
    return filled("classification", post(size, pooler_act="gelu"), FACTS, weights), theirs


def albert(size: tuple[int, int, int]) -> Pair:
    """Six layers of two groups. Its product between table and width, which has a bias, is the identity here."""
    width, heads, inner = size
    config = transformers.AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=width,
        hidden_size=width,
        num_hidden_layers=6,
        num_hidden_groups=2,
        num_attention_heads=heads,
        intermediate_size=inner,
        hidden_act="gelu",
        max_position_embeddings=32,
        num_labels=5,
        classifier_dropout_prob=0.0,
        **DROPPED,
    )
    theirs = randomized(transformers.AlbertForSequenceClassification(config))
    state = theirs.state_dict()
    mapping = "albert.encoder.embedding_hidden_mapping_in"
    state[f"{mapping}.weight"].copy_(torch.eye(width))
    state[f"{mapping}.bias"].zero_()
    weights = embedded(state, "albert.embeddings") | renamed(
        state, {"pooler": "albert.pooler", "classifier": "classifier"}, suffixes=BOTH
    )
    names = {
        "attention.dense": "attention.dense",
        "input_layernorm": "attention.LayerNorm",
        "mlp.fc": "ffn",
        "mlp.proj": "ffn_output",
        "post_layernorm": "full_layer_layer_norm",
    }
    products = ("attention.query", "attention.key", "attention.value")
    for i in range(2):
        group = f"albert.encoder.albert_layer_groups.{i}.albert_layers.0"
        weights |= block(state, f"stack.layers.{i}", group, products, names)
    values = post(size, num_layers=6, layers_sharing_weights=3)
    return filled("classification", values, FACTS, weights), theirs


MODELS = {"distilbert": distilbert, "electra": electra, "albert": albert}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_encoder(make: Callable[[tuple[int, int, int]], Pair], size: tuple[int, int, int]) -> None:
    ours, theirs = make(size)
    inputs, mask = INPUTS
    with torch.no_grad():
        assert_same(ours(inputs, mask), theirs(input_ids=inputs.long(), attention_mask=mask).logits)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_encoder_in_onnx(
    make: Callable[[tuple[int, int, int]], Pair], size: tuple[int, int, int], tmp_path: Path
) -> None:
    ours, theirs = make(size)
    inputs, mask = INPUTS
    with torch.no_grad():
        expected = theirs(input_ids=inputs.long(), attention_mask=mask).logits
    assert_same_in_onnx(ours, {"tokens": inputs, "token_mask": mask}, expected, tmp_path)
