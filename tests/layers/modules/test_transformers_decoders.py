"""Decoders of today against the `transformers` package: what they have beside GPT-2 and the first Llama.

Each at three sizes: with its weights copied over, ours gives the same logits, as a module and as a graph of opset 17 in
ONNX Runtime. Configured small, with random weights: nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch import Tensor, nn

from layers.export.onnx_export import export
from tests.layers.modules.transformers_weights import (
    TOLERANCE,
    VOCABULARY,
    Weights,
    assert_same,
    filled,
    joined,
    randomized,
    renamed,
    tokens,
)

B, T = 2, 19
LAYERS = 3

PRE_NORMS = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}
SANDWICH_NORMS = {
    "input_layernorm": "input_layernorm",
    "attention_output_layernorm": "post_attention_layernorm",
    "post_layernorm": "pre_feedforward_layernorm",
    "mlp_output_layernorm": "post_feedforward_layernorm",
}
BRANCH_NORMS = {"input_layernorm": "post_attention_layernorm", "post_layernorm": "post_feedforward_layernorm"}


@dataclass(frozen=True, slots=True)
class Size:
    """Of a small model: heads, heads of keys and values, channels of a head, and widths."""

    heads: int
    kv_heads: int
    head: int
    width: int
    inner: int


SIZES = (Size(4, 2, 12, 48, 80), Size(3, 1, 10, 30, 37), Size(5, 5, 8, 40, 64))


@dataclass(frozen=True, slots=True)
class Family:
    """A decoder of `transformers`: how it is made at a size, what ours is called, and where the weights lie."""

    model: Callable[[Size], nn.Module]
    values: Callable[[Size], dict[str, Any]]
    weights: Callable[[Mapping[str, Tensor], Size], Weights] = field(repr=False)
    sizes: tuple[Size, ...] = SIZES


def llama_like(
    norms: Mapping[str, str] = PRE_NORMS,
    *,
    tied: bool = False,
    biases: tuple[str, ...] = (),
    qk_norms: bool = False,
    unit_offset: bool = False,
) -> Callable[[Mapping[str, Tensor], Size], Weights]:
    """Weights by the names that Llama and its relatives share. `unit_offset`: of norms that multiply by 1 + weight."""

    def weights(state: Mapping[str, Tensor], size: Size) -> Weights:
        found = renamed(state, {"embedding.table": "model.embed_tokens"})
        scales = {"stack.final_layernorm": "model.norm"}
        if not tied:
            found |= renamed(state, {"head.linear": "lm_head"})
        for i in range(LAYERS):
            ours, block = f"stack.layers.{i}", f"model.layers.{i}"
            scales |= {f"{ours}.{our}": f"{block}.{their}" for our, their in norms.items()}
            if qk_norms:
                scales |= {f"{ours}.attention.{each}_layernorm": f"{block}.self_attn.{each}_norm" for each in "qk"}
            names = {f"{ours}.attention.dense": "self_attn.o_proj", f"{ours}.mlp.gate": "mlp.gate_proj"}
            names |= {f"{ours}.mlp.up": "mlp.up_proj", f"{ours}.mlp.proj": "mlp.down_proj"}
            found |= renamed(state, {our: f"{block}.{their}" for our, their in names.items()})
            for suffix in ("weight", *biases):
                heads = [f"{block}.self_attn.{name}_proj.{suffix}" for name in "qkv"]
                found[f"{ours}.attention.qkv.{suffix}"] = joined(state, *heads)
        offset = 1.0 if unit_offset else 0.0
        return found | {name: value + offset for name, value in renamed(state, scales).items()}

    return weights


def of_llama(size: Size, *, tied: bool = False, **others: Any) -> dict[str, Any]:
    """The fields of a configuration that Llama and its relatives share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    } | others


def our_llama(size: Size, *, tied: bool = False, **others: Any) -> dict[str, Any]:
    """The same of ours."""
    return {
        "num_layers": LAYERS,
        "hidden_size": size.width,
        "tie_embeddings": tied,
        "attention.num_attention_heads": size.heads,
        "attention.num_kv_heads": size.kv_heads,
        "attention.attention_head_size": size.head,
        "attention.max_position_embeddings": 64,
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.bias": False,
        "mlp.kind": "GatedMLP",
        "mlp.ffn_hidden_size": size.inner,
        "mlp.hidden_act": "silu",
        "mlp.bias": False,
        "norm.kind": "RmsNorm",
        "norm.eps": 1e-6,
    } | others


def _scaled_llama(rope: dict[str, Any], ours: dict[str, Any]) -> Family:
    rotary = {"rope_theta": 500.0, **rope}
    return Family(
        lambda size: transformers.LlamaForCausalLM(transformers.LlamaConfig(**of_llama(size, rope_parameters=rotary))),
        lambda size: our_llama(size) | {"attention.rotary_embedding_base": 500.0, **ours},
        llama_like(),
    )


LINEAR = _scaled_llama(
    {"rope_type": "linear", "factor": 4.0},
    {"attention.rotary_embedding_scale_type": "linear", "attention.rotary_embedding_scale": 4.0},
)
LLAMA3 = _scaled_llama(
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 48,
    },
    {"attention.rotary_embedding_scale_type": "llama3", "attention.original_max_position_embeddings": 48},
)
YARN = _scaled_llama(
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "original_max_position_embeddings": 48},
    {
        "attention.rotary_embedding_scale_type": "yarn",
        "attention.rotary_embedding_scale": 4.0,
        "attention.rotary_embedding_beta_fast": 8.0,
        "attention.original_max_position_embeddings": 48,
    },
)
QWEN2 = Family(
    lambda size: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**of_llama(size, tied=True))),
    lambda size: our_llama(size, tied=True) | {"attention.bias": True, "attention.dense_bias": False},
    llama_like(tied=True, biases=("bias",)),
)
QWEN3 = Family(
    lambda size: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**of_llama(size, tied=True))),
    lambda size: our_llama(size, tied=True) | {"attention.qk_norm": "RmsNorm"},
    llama_like(tied=True, qk_norms=True),
)
OLMO2 = Family(
    lambda size: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**of_llama(size, rms_norm_eps=1e-6))),
    lambda size: (
        our_llama(size)
        | {"norm_position": "branch", "attention.qk_norm": "RmsNorm", "attention.qk_norm_scope": "width"}
    ),
    llama_like(BRANCH_NORMS, qk_norms=True),
)


def _gemma(size: Size, **others: Any) -> dict[str, Any]:
    return of_llama(size, tied=True, sliding_window=5, query_pre_attn_scalar=7, attn_implementation="eager", **others)


def _our_gemma(size: Size, **others: Any) -> dict[str, Any]:
    return our_llama(size, tied=True) | {
        "norm_position": "sandwich",
        "embedding_scale": size.width**0.5,
        "attention.q_scaling": (7 / size.head) ** 0.5,
        "mlp.hidden_act": "gelu_pytorch_tanh",
        **{f"layers.{i}.attention.attention_mask_type": "sliding_window_causal" for i in (0, 2)},
        **{f"layers.{i}.attention.max_attention_window_size": 5 for i in (0, 2)},
        **others,
    }


GEMMA2 = Family(
    lambda size: transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(
            **_gemma(
                size,
                attn_logit_softcapping=3.0,
                final_logit_softcapping=2.0,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            )
        )
    ),
    lambda size: _our_gemma(size) | {"attention.softcap": 3.0, "logits_softcap": 2.0},
    llama_like(SANDWICH_NORMS, tied=True, unit_offset=True),
)
GEMMA3 = Family(
    lambda size: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            **_gemma(
                size,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                rope_parameters={
                    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                    "full_attention": {"rope_type": "default", "rope_theta": 3000.0},
                },
            )
        )
    ),
    lambda size: _our_gemma(
        size,
        **{
            "attention.qk_norm": "RmsNorm",
            "attention.rotary_embedding_base": 100.0,
            "layers.1.attention.rotary_embedding_base": 3000.0,
        },
    ),
    llama_like(SANDWICH_NORMS, tied=True, qk_norms=True, unit_offset=True),
)
GRANITE = Family(
    lambda size: transformers.GraniteForCausalLM(
        transformers.GraniteConfig(
            **of_llama(
                size,
                embedding_multiplier=3.0,
                residual_multiplier=0.3,
                logits_scaling=4.0,
                attention_multiplier=0.2,
            )
        )
    ),
    lambda size: (
        our_llama(size)
        | {
            "embedding_scale": 3.0,
            "residual_scale": 0.3,
            "logits_scale": 0.25,
            "attention.q_scaling": 1 / (0.2 * size.head**0.5),
        }
    ),
    llama_like(),
)
SMOLLM3 = Family(
    lambda size: transformers.SmolLM3ForCausalLM(
        transformers.SmolLM3Config(**of_llama(size, tied=True, no_rope_layers=[1, 0, 1], rope_theta=10_000.0))
    ),
    lambda size: our_llama(size, tied=True) | {"layers.1.attention.position_embedding_type": "none"},
    llama_like(tied=True),
)


def _neox_weights(state: Mapping[str, Tensor], size: Size) -> Weights:
    both = ("weight", "bias")
    found = renamed(state, {"embedding.table": "gpt_neox.embed_in", "head.linear": "lm_head"})
    found |= renamed(state, {"stack.final_layernorm": "gpt_neox.final_layer_norm"}, suffixes=both)
    for i in range(LAYERS):
        ours, block = f"stack.layers.{i}", f"gpt_neox.layers.{i}"
        names = {
            "input_layernorm": "input_layernorm",
            "post_layernorm": "post_attention_layernorm",
            "attention.dense": "attention.dense",
            "mlp.fc": "mlp.dense_h_to_4h",
            "mlp.proj": "mlp.dense_4h_to_h",
        }
        placed = {f"{ours}.{our}": f"{block}.{their}" for our, their in names.items()}
        found |= renamed(state, placed, suffixes=both)
        for suffix in both:
            # Queries, keys and values of a head stand together.
            rows = state[f"{block}.attention.query_key_value.{suffix}"].unflatten(0, (size.heads, 3, -1))
            found[f"{ours}.attention.qkv.{suffix}"] = rows.transpose(0, 1).flatten(0, 2)
    return found


def _by_width(size: Size) -> Size:
    """With as many heads of keys as of queries, that are the width's parts."""
    return Size(size.heads, size.heads, size.head, size.heads * size.head, size.inner)


def _parallel(size: Size) -> dict[str, Any]:
    return {
        "num_layers": LAYERS,
        "hidden_size": size.width,
        "residual": "parallel",
        "attention.num_attention_heads": size.heads,
        "attention.max_position_embeddings": 64,
        "attention.position_embedding_type": "rope_gpt_neox",
        "mlp.ffn_hidden_size": size.inner,
    }


NEOX = Family(
    lambda size: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=size.width,
            num_hidden_layers=LAYERS,
            num_attention_heads=size.heads,
            intermediate_size=size.inner,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
            max_position_embeddings=64,
            tie_word_embeddings=False,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )
    ),
    lambda size: _parallel(size) | {"tie_embeddings": False, "attention.rotary_embedding_percentage": 0.5},
    _neox_weights,
    tuple(_by_width(size) for size in (SIZES[0], Size(3, 3, 8, 24, 37), SIZES[2])),
)


def _falcon_weights(state: Mapping[str, Tensor], size: Size) -> Weights:
    found = renamed(state, {"embedding.table": "transformer.word_embeddings"})
    found |= renamed(state, {"stack.final_layernorm": "transformer.ln_f"}, suffixes=("weight", "bias"))
    for i in range(LAYERS):
        ours, block = f"stack.layers.{i}", f"transformer.h.{i}"
        norm = {f"{ours}.input_layernorm": f"{block}.input_layernorm"}
        found |= renamed(state, norm, suffixes=("weight", "bias"))
        names = {
            "attention.qkv": "self_attention.query_key_value",
            "attention.dense": "self_attention.dense",
            "mlp.fc": "mlp.dense_h_to_4h",
            "mlp.proj": "mlp.dense_4h_to_h",
        }
        found |= renamed(state, {f"{ours}.{our}": f"{block}.{their}" for our, their in names.items()})
    return found


FALCON = Family(
    lambda size: transformers.FalconForCausalLM(
        transformers.FalconConfig(
            vocab_size=VOCABULARY,
            hidden_size=size.width,
            num_hidden_layers=LAYERS,
            num_attention_heads=size.heads,
            ffn_hidden_size=size.inner,
            multi_query=True,
            parallel_attn=True,
            new_decoder_architecture=False,
            bias=False,
            alibi=False,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            max_position_embeddings=64,
        )
    ),
    lambda size: (
        _parallel(size) | {"shared_norm": True, "attention.num_kv_heads": 1, "attention.bias": False, "mlp.bias": False}
    ),
    _falcon_weights,
    tuple(_by_width(size) for size in SIZES),
)

FAMILIES = {
    "linear": LINEAR,
    "llama3": LLAMA3,
    "yarn": YARN,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "olmo2": OLMO2,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "granite": GRANITE,
    "smollm3": SMOLLM3,
    "gpt_neox": NEOX,
    "falcon": FALCON,
}

CASES = [
    pytest.param(name, size, id=f"{name}-{size.width}") for name, family in FAMILIES.items() for size in family.sizes
]
EXPORTED = [
    pytest.param(name, size, id=f"{name}-{size.width}", marks=[] if size is family.sizes[1] else [pytest.mark.slow])
    for name, family in FAMILIES.items()
    for size in family.sizes
]
"""An export takes a second or two: the second size, whose numbers are odd, stands for the others."""


def _both(name: str, size: Size) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs with the same weights."""
    family = FAMILIES[name]
    theirs = randomized(family.model(size))
    facts = {"vocabulary_size": VOCABULARY, "sequence_length": T}
    return filled("causal_lm", family.values(size), facts, family.weights(theirs.state_dict(), size)), theirs


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_decoder_gives_the_logits_of_its_reference(name: str, size: Size) -> None:
    ours, theirs = _both(name, size)
    inputs = tokens(B, T)
    with torch.no_grad():
        assert_same(ours(inputs), theirs(inputs.long()).logits)


@pytest.mark.parametrize(("name", "size"), EXPORTED)
def test_its_graph_gives_them_too(name: str, size: Size, tmp_path: Path) -> None:
    ours, theirs = _both(name, size)
    inputs = tokens(B, T)
    with torch.no_grad():
        expected = theirs(inputs.long()).logits.numpy()
    path = tmp_path / "model.onnx"
    export(ours, (inputs,), path, opset=17, input_names=["tokens"])
    (logits,) = onnxruntime.InferenceSession(str(path)).run(None, {"tokens": inputs.numpy()})
    assert np.linalg.norm(logits - expected) / np.linalg.norm(expected) <= TOLERANCE
