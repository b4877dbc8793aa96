"""Whole models against the `transformers` package: with its weights copied over, ours give the same logits.

Configured small, with random weights: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from tests.layers.modules.transformers_weights import (
    VOCABULARY,
    B,
    S,
    T,
    Weights,
    assert_same,
    filled,
    joined,
    randomized,
    renamed,
    tokens,
)


def test_gpt2() -> None:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=48, n_layer=3, n_head=4, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0
    )
    theirs = randomized(transformers.GPT2LMHeadModel(config))
    state = theirs.state_dict()
    both = ("weight", "bias")
    weights = renamed(
        state, {"embedding.table": "transformer.wte", "stack.position_embedding": "transformer.wpe"}
    ) | renamed(state, {"stack.final_layernorm": "transformer.ln_f"}, suffixes=both)
    for i in range(3):
        ours, block = f"stack.layers.{i}", f"transformer.h.{i}"
        norms = {f"{ours}.input_layernorm": f"{block}.ln_1", f"{ours}.post_layernorm": f"{block}.ln_2"}
        weights |= renamed(state, norms, suffixes=both)
        products = {
            f"{ours}.attention.qkv": f"{block}.attn.c_attn",
            f"{ours}.attention.dense": f"{block}.attn.c_proj",
            f"{ours}.mlp.fc": f"{block}.mlp.c_fc",
            f"{ours}.mlp.proj": f"{block}.mlp.c_proj",
        }
        weights |= renamed(state, products, suffixes=("bias",))
        # GPT-2 keeps its matrices the other way round.
        weights |= {f"{our}.weight": state[f"{their}.weight"].T for our, their in products.items()}
    values = {
        "num_layers": 3,
        "hidden_size": 48,
        "attention.num_attention_heads": 4,
        "attention.max_position_embeddings": 32,
        "mlp.hidden_act": "gelu_new",
    }
    module = filled("causal_lm", values, {"vocabulary_size": VOCABULARY, "sequence_length": T}, weights)
    inputs = tokens(B, T)
    with torch.no_grad():
        assert_same(module(inputs), theirs(inputs.long()).logits)


@pytest.mark.parametrize("kind", ["GatedMLP", "FusedGatedMLP"])
@pytest.mark.parametrize("tied", [False, True])
def test_llama_with_grouped_queries(kind: str, tied: bool) -> None:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=tied,
    )
    theirs = randomized(transformers.LlamaForCausalLM(config))
    state = theirs.state_dict()
    weights = renamed(state, {"embedding.table": "model.embed_tokens", "stack.final_layernorm": "model.norm"})
    if not tied:
        weights |= renamed(state, {"head.linear": "lm_head"})
    for i in range(2):
        ours, block = f"stack.layers.{i}", f"model.layers.{i}"
        weights |= renamed(
            state,
            {
                f"{ours}.input_layernorm": f"{block}.input_layernorm",
                f"{ours}.post_layernorm": f"{block}.post_attention_layernorm",
                f"{ours}.attention.dense": f"{block}.self_attn.o_proj",
                f"{ours}.mlp.proj": f"{block}.mlp.down_proj",
            },
        )
        heads = [f"{block}.self_attn.{name}_proj.weight" for name in ("q", "k", "v")]
        weights[f"{ours}.attention.qkv.weight"] = joined(state, *heads)
        gate, up = f"{block}.mlp.gate_proj.weight", f"{block}.mlp.up_proj.weight"
        if kind == "FusedGatedMLP":
            weights[f"{ours}.mlp.fused_fc.weight"] = joined(state, gate, up)
        else:
            weights |= {f"{ours}.mlp.gate.weight": state[gate], f"{ours}.mlp.up.weight": state[up]}
    values = {
        "num_layers": 2,
        "hidden_size": 48,
        "tie_embeddings": tied,
        "attention.num_attention_heads": 6,
        "attention.num_kv_heads": 2,
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.rotary_embedding_base": 5000.0,
        "attention.bias": False,
        "mlp.kind": kind,
        "mlp.ffn_hidden_size": 80,
        "mlp.hidden_act": "silu",
        "mlp.bias": False,
        "norm.kind": "RmsNorm",
    }
    module = filled("causal_lm", values, {"vocabulary_size": VOCABULARY, "sequence_length": T}, weights)
    inputs = tokens(B, T)
    with torch.no_grad():
        assert_same(module(inputs), theirs(inputs.long()).logits)


T5_VALUES: dict[str, Any] = {
    "num_layers": 2,
    "num_encoder_layers": 3,
    "hidden_size": 48,
    "share_source_embedding": True,
    "attention.num_attention_heads": 3,
    "attention.attention_head_size": 8,
    "attention.position_embedding_type": "relative",
    "attention.num_buckets": 8,
    "attention.max_distance": 10,
    # T5 does not divide its scores by the root of the head size.
    "attention.q_scaling": 8**-0.5,
    "attention.bias": False,
    "mlp.bias": False,
    "norm.kind": "RmsNorm",
}


def t5_weights(state: Mapping[str, Tensor], *, gated: bool, tied: bool) -> Weights:
    weights = renamed(state, {"embedding.table": "shared"})
    if not tied:
        weights |= renamed(state, {"head.linear": "lm_head"})
    for stack, layers, feed_forward in (("encoder", 3, 1), ("decoder", 2, 2)):
        table = state[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].T
        bias = "score_biases.0.relative.table"
        weights[f"{stack}.{bias}"] = table
        weights |= renamed(state, {f"{stack}.final_layernorm": f"{stack}.final_layer_norm"})
        for i in range(layers):
            ours, block = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
            own = f"{block}.0.SelfAttention"
            names = {
                f"{ours}.input_layernorm": f"{block}.0.layer_norm",
                f"{ours}.attention.dense": f"{own}.o",
                f"{ours}.post_layernorm": f"{block}.{feed_forward}.layer_norm",
                f"{ours}.mlp.proj": f"{block}.{feed_forward}.DenseReluDense.wo",
            }
            inner = ("gate", "up") if gated else ("fc",)
            for our, their in zip(inner, ("wi_0", "wi_1") if gated else ("wi",), strict=True):
                names[f"{ours}.mlp.{our}"] = f"{block}.{feed_forward}.DenseReluDense.{their}"
            weights[f"{ours}.attention.qkv.weight"] = joined(state, *(f"{own}.{name}.weight" for name in "qkv"))
            if stack == "decoder":
                cross = f"{block}.1.EncDecAttention"
                names |= {
                    f"{ours}.cross_layernorm": f"{block}.1.layer_norm",
                    f"{ours}.cross_attention.query": f"{cross}.q",
                    f"{ours}.cross_attention.dense": f"{cross}.o",
                }
                key_value = joined(state, f"{cross}.k.weight", f"{cross}.v.weight")
                weights[f"{ours}.cross_attention.key_value.weight"] = key_value
            weights |= renamed(state, names)
    return weights


@pytest.mark.parametrize(
    ("feed_forward", "tied", "ours"),
    [
        ("relu", True, {"mlp.hidden_act": "relu", "rescale_before_lm_head": True}),
        ("gated-gelu", False, {"mlp.kind": "GatedMLP", "mlp.hidden_act": "gelu_new", "tie_embeddings": False}),
    ],
)
def test_t5_both_stacks(feed_forward: str, tied: bool, ours: dict[str, Any]) -> None:
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=48,
        d_kv=8,
        d_ff=64,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        dropout_rate=0.0,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=tied,
    )
    theirs = randomized(transformers.T5ForConditionalGeneration(config))
    weights = t5_weights(theirs.state_dict(), gated=feed_forward != "relu", tied=tied)
    facts = {"vocabulary_size": VOCABULARY, "source_vocabulary_size": VOCABULARY, "source_length": S}
    values = {**T5_VALUES, "mlp.ffn_hidden_size": 64, **ours}
    module = filled("seq2seq", values, {**facts, "sequence_length": T}, weights)
    source, target = tokens(B, S), tokens(B, T, seed=2)
    mask = (torch.arange(S) < torch.tensor([[S], [5], [1]])).int()
    with torch.no_grad():
        expected = theirs(input_ids=source.long(), attention_mask=mask, decoder_input_ids=target.long()).logits
        assert_same(module(source, mask, target), expected)


@pytest.mark.parametrize("masked", [True, False])
def test_bert(masked: bool) -> None:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
        num_labels=5,
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    theirs = randomized(transformers.BertForSequenceClassification(config))
    state = theirs.state_dict()
    both = ("weight", "bias")
    weights = renamed(state, {"embedding.table": "bert.embeddings.word_embeddings"}) | renamed(
        state,
        {
            "stack.embedding_layernorm": "bert.embeddings.LayerNorm",
            "pooler": "bert.pooler.dense",
            "classifier": "classifier",
        },
        suffixes=both,
    )
    # All tokens are of the first type: its vector is added to every position.
    positions, types = (state[f"bert.embeddings.{name}_embeddings.weight"] for name in ("position", "token_type"))
    weights["stack.position_embedding.weight"] = positions + types[0]
    for i in range(3):
        ours, layer = f"stack.layers.{i}", f"bert.encoder.layer.{i}"
        weights |= renamed(
            state,
            {
                f"{ours}.attention.dense": f"{layer}.attention.output.dense",
                f"{ours}.input_layernorm": f"{layer}.attention.output.LayerNorm",
                f"{ours}.mlp.fc": f"{layer}.intermediate.dense",
                f"{ours}.mlp.proj": f"{layer}.output.dense",
                f"{ours}.post_layernorm": f"{layer}.output.LayerNorm",
            },
            suffixes=both,
        )
        for suffix in both:
            parts = [f"{layer}.attention.self.{name}.{suffix}" for name in ("query", "key", "value")]
            weights[f"{ours}.attention.qkv.{suffix}"] = joined(state, *parts)
    values = {
        "num_layers": 3,
        "hidden_size": 48,
        "norm_position": "post",
        "has_embedding_layernorm": True,
        "pooling": "pooler",
        "attention.num_attention_heads": 4,
        "attention.max_position_embeddings": 32,
        "attention.attention_mask_type": "padding" if masked else "bidirectional",
        "mlp.ffn_hidden_size": 96,
        "norm.eps": 1e-12,
    }
    facts = {"vocabulary_size": VOCABULARY, "classes": 5, "sequence_length": T}
    module = filled("classification", values, facts, weights)
    inputs = tokens(B, T)
    mask = (torch.arange(T) < torch.tensor([[T], [8], [1]])).int()
    given = (mask,) if masked else ()
    with torch.no_grad():
        expected = theirs(inputs.long(), attention_mask=mask if masked else None).logits
        assert_same(module(inputs, *given), expected)
