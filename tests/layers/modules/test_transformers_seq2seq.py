"""Encoder-decoders against the `transformers` package: fixed positions, a head with a bias, a relative table a layer.

Configured small, with random weights: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.layers.modules.test_transformers import T5_VALUES, t5_weights
from tests.layers.modules.transformers_weights import (
    VOCABULARY,
    B,
    S,
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

FACTS = {
    "vocabulary_size": VOCABULARY,
    "source_vocabulary_size": VOCABULARY,
    "source_length": S,
    "sequence_length": T,
}
BOTH = ("weight", "bias")
SIZES = [(24, 3, 37), (25, 5, 64), (42, 7, 51)]
"""Width, heads and feed-forward width."""
SOURCE, TARGET = tokens(B, S), tokens(B, T, seed=2)
SOURCE_MASK = (torch.arange(S) < torch.tensor([[S], [5], [1]])).int()

Pair = tuple[nn.Module, nn.Module]
"""Ours, and theirs with the same weights."""


def marian(size: tuple[int, int, int]) -> Pair:
    width, heads, inner = size
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY,
        d_model=width,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=inner,
        decoder_ffn_dim=inner,
        max_position_embeddings=32,
        activation_function="silu",
        scale_embedding=True,
        dropout=0.0,
        pad_token_id=VOCABULARY - 1,
        decoder_start_token_id=VOCABULARY - 1,
    )
    theirs = transformers.MarianMTModel(config)
    fixed = {name: value.clone() for name, value in theirs.state_dict().items() if "embed_positions" in name}
    theirs = randomized(theirs)
    theirs.load_state_dict(fixed, strict=False)
    theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(3))
    values = {
        "num_layers": 2,
        "num_encoder_layers": 3,
        "hidden_size": width,
        "norm_position": "post",
        "share_source_embedding": True,
        "embedding_scale": width**0.5,
        "head_bias": True,
        "attention.num_attention_heads": heads,
        "attention.position_embedding_type": "sinusoidal",
        "attention.max_position_embeddings": 32,
        "mlp.ffn_hidden_size": inner,
        "mlp.hidden_act": "silu",
    }
    return filled("seq2seq", values, FACTS, marian_weights(theirs.state_dict())), theirs


def marian_weights(state: Mapping[str, Tensor]) -> Weights:
    weights = {"head.bias": state["final_logits_bias"][0], "embedding.table.weight": state["model.shared.weight"]}
    for stack, layers in (("encoder", 3), ("decoder", 2)):
        for i in range(layers):
            ours, theirs = f"{stack}.layers.{i}", f"model.{stack}.layers.{i}"
            names = {
                "attention.dense": "self_attn.out_proj",
                "input_layernorm": "self_attn_layer_norm",
                "mlp.fc": "fc1",
                "mlp.proj": "fc2",
                "post_layernorm": "final_layer_norm",
            }
            joint = {"attention.qkv": [f"self_attn.{name}_proj" for name in "qkv"]}
            if stack == "decoder":
                cross = {"dense": "out_proj", "query": "q_proj"}
                names |= {f"cross_attention.{our}": f"encoder_attn.{their}" for our, their in cross.items()}
                names["cross_layernorm"] = "encoder_attn_layer_norm"
                joint["cross_attention.key_value"] = ["encoder_attn.k_proj", "encoder_attn.v_proj"]
            weights |= renamed(state, {f"{ours}.{a}": f"{theirs}.{b}" for a, b in names.items()}, suffixes=BOTH)
            for suffix in BOTH:
                for our, their in joint.items():
                    weights[f"{ours}.{our}.{suffix}"] = joined(state, *(f"{theirs}.{each}.{suffix}" for each in their))
    return weights


def umt5(size: tuple[int, int, int]) -> Pair:
    width, heads, inner = size
    config = transformers.UMT5Config(
        vocab_size=VOCABULARY,
        d_model=width,
        d_kv=7,
        d_ff=inner,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=heads,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    theirs = randomized(transformers.UMT5ForConditionalGeneration(config))
    state = theirs.state_dict()
    weights = t5_weights(state, gated=True, tied=True)
    for stack, layers in (("encoder", 3), ("decoder", 2)):
        tables = [
            state[f"{stack}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight"].T for i in range(layers)
        ]
        # A decoder's attention to its source has nothing added but the mask; its place is after the first layer's.
        places = range(layers) if stack == "encoder" else (0, *range(2, layers + 1))
        for place, table in zip(places, tables, strict=True):
            weights[f"{stack}.score_biases.{place}.relative.table"] = table
    values: dict[str, Any] = {
        **T5_VALUES,
        "hidden_size": width,
        "attention.num_attention_heads": heads,
        "attention.attention_head_size": 7,
        "attention.q_scaling": 7**-0.5,
        "attention.relative_table_per_layer": True,
        "mlp.kind": "GatedMLP",
        "mlp.ffn_hidden_size": inner,
        "mlp.hidden_act": "gelu_new",
        "rescale_before_lm_head": bool(config.scale_decoder_outputs),
    }
    return filled("seq2seq", values, FACTS, weights), theirs


MODELS = {"marian": marian, "umt5": umt5}


def expected(theirs: nn.Module) -> Tensor:
    given = {"input_ids": SOURCE.long(), "attention_mask": SOURCE_MASK, "decoder_input_ids": TARGET.long()}
    with torch.no_grad():
        return theirs(**given).logits


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_encoder_decoder(make: Callable[[tuple[int, int, int]], Pair], size: tuple[int, int, int]) -> None:
    ours, theirs = make(size)
    with torch.no_grad():
        assert_same(ours(SOURCE, SOURCE_MASK, TARGET), expected(theirs))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_encoder_decoder_in_onnx(
    make: Callable[[tuple[int, int, int]], Pair], size: tuple[int, int, int], tmp_path: Path
) -> None:
    ours, theirs = make(size)
    inputs = {"source": SOURCE, "source_mask": SOURCE_MASK, "tokens": TARGET}
    assert_same_in_onnx(ours, inputs, expected(theirs), tmp_path)
