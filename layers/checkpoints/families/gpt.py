"""GPT-2 and GPT-NeoX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from layers.checkpoints.architecture import BIASES, Architecture, Config, Model
from layers.checkpoints.blocks import layer_norm
from layers.checkpoints.config_json import ConfigJson
from layers.checkpoints.rotations import halved_rows
from layers.checkpoints.tensors import Constant, Link, Order, Part, same
from layers.checkpoints.values import NO_TOKENS, activation, head_size, our_activation, our_rope, rope_scaling
from layers.declarations.attention import AttentionConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.per_layer import views
from layers.parameter import Scalar

# --- GPT-2 ----------------------------------------------------------------------------------------------------------


def _gpt2(model: Model) -> Config:
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "n_positions": int(model["attention.max_position_embeddings"]),
        "n_embd": int(model["hidden_size"]),
        "n_layer": len(views(model)),
        "n_head": int(model["attention.num_attention_heads"]),
        "n_inner": int(model["mlp.ffn_hidden_size"]),
        "activation_function": activation(model),
        "layer_norm_epsilon": float(model["norm.eps"]),
        "scale_attn_weights": float(model["attention.q_scaling"]) == 1.0,
        "tie_word_embeddings": bool(model["tie_embeddings"]),
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        **NO_TOKENS,
    }


def _our_gpt2(config: ConfigJson) -> dict[str, Scalar]:
    config.refuse("scale_attn_by_inverse_layer_idx", False, "Layersweep scales scores alike in all layers")
    config.refuse("add_cross_attention", False, "Layersweep builds decoders that attend to their own tokens")
    width, heads = config.integer("n_embd", 768), config.integer("n_head", 12)
    scaled = config.flag("scale_attn_weights", True)
    return {
        "kind": "decoder",
        "num_layers": config.integer("n_layer", 12),
        "hidden_size": width,
        "tie_embeddings": config.flag("tie_word_embeddings", True),
        "embedding.num_embeddings": config.integer("vocab_size"),
        "attention.num_attention_heads": heads,
        "attention.attention_head_size": head_size(width, heads),
        "attention.max_position_embeddings": config.integer("n_positions", 1024),
        "attention.position_embedding_type": "learned_absolute",
        "attention.bias": True,
        "attention.q_scaling": 1.0 if scaled else 1.0 / math.sqrt(width // heads),
        "mlp.kind": "MLP",
        "mlp.ffn_hidden_size": config.integer("n_inner", 4 * width),
        "mlp.hidden_act": our_activation(config, "activation_function", "gelu_new"),
        "mlp.bias": True,
        "norm.kind": "LayerNorm",
        "norm.eps": config.number("layer_norm_epsilon", 1e-5),
    }


def _gpt2_parts(model: Model) -> list[Part]:
    rows, width = int(model["embedding.num_embeddings"]), int(model["hidden_size"])
    positions = int(model["attention.max_position_embeddings"])
    layers = views(model)
    parts: list[Part] = [
        same("embedding.table.weight", "transformer.wte.weight", rows),
        same("stack.position_embedding.weight", "transformer.wpe.weight", positions),
        *layer_norm(layers[-1], "stack.final_layernorm", "transformer.ln_f"),
    ]
    if not model["tie_embeddings"]:
        parts.append(same("head.linear.weight", "lm_head.weight", rows))
    for number, layer in enumerate(layers):
        ours, theirs = f"stack.layers.{number}", f"transformer.h.{number}"
        attention, mlp = AttentionConfig.of(layer), MlpConfig.of(layer)
        parts += layer_norm(layer, f"{ours}.input_layernorm", f"{theirs}.ln_1")
        parts += layer_norm(layer, f"{ours}.post_layernorm", f"{theirs}.ln_2")
        products = (
            ("attention.qkv", "attn.c_attn", attention.qkv.out_features, attention.bias),
            ("attention.dense", "attn.c_proj", width, attention.dense.bias),
            ("mlp.fc", "mlp.c_fc", mlp.ffn_hidden_size, mlp.bias),
            ("mlp.proj", "mlp.c_proj", width, mlp.bias),
        )
        for our, their, size, bias in products:
            parts += _turned(f"{ours}.{our}", f"{theirs}.{their}", size, bias=bias)
    return parts


def _turned(ours: str, theirs: str, rows: int, *, bias: bool) -> list[Part]:
    """A product whose matrix GPT-2 keeps the other way round, with its bias."""
    weight = Link({f"{ours}.weight": rows}, {f"{theirs}.weight": rows}, transposed=True)
    return [weight, _bias(ours, theirs, rows, bias=bias)]


def _bias(ours: str, theirs: str, rows: int, *, bias: bool, order: Order | None = None) -> Part:
    if not bias:
        return Constant(f"{theirs}.bias", (rows,), 0.0)
    return Link({f"{ours}.bias": rows}, {f"{theirs}.bias": rows}, order=order)


# --- GPT-NeoX -------------------------------------------------------------------------------------------------------


def _neox(model: Model) -> Config:
    scaling = rope_scaling(model)
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "hidden_size": int(model["hidden_size"]),
        "num_hidden_layers": len(views(model)),
        "num_attention_heads": int(model["attention.num_attention_heads"]),
        "intermediate_size": int(model["mlp.ffn_hidden_size"]),
        "hidden_act": activation(model),
        "max_position_embeddings": int(model["attention.max_position_embeddings"]),
        "layer_norm_eps": float(model["norm.eps"]),
        "rotary_emb_base": float(model["attention.rotary_embedding_base"]),
        "rotary_pct": float(model["attention.rotary_embedding_percentage"]),
        **({} if scaling is None else {"rope_scaling": scaling}),
        "use_parallel_residual": model.get("residual") == "parallel",
        "attention_bias": bool(model["attention.bias"]),
        "tie_word_embeddings": bool(model["tie_embeddings"]),
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        **NO_TOKENS,
    }


def _our_neox(config: ConfigJson) -> dict[str, Scalar]:
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    share = config.section("rope_parameters").number("partial_rotary_factor", config.number("rotary_pct", 0.25))
    return {
        "kind": "decoder",
        "num_layers": config.integer("num_hidden_layers"),
        "hidden_size": width,
        "residual": "parallel" if config.flag("use_parallel_residual", True) else "sequential",
        "tie_embeddings": config.flag("tie_word_embeddings", False),
        "embedding.num_embeddings": config.integer("vocab_size"),
        "attention.num_attention_heads": heads,
        "attention.attention_head_size": head_size(width, heads),
        "attention.max_position_embeddings": config.integer("max_position_embeddings", 2048),
        "attention.position_embedding_type": "rope_gpt_neox",
        **our_rope(config, base="rotary_emb_base"),
        "attention.rotary_embedding_percentage": share,
        "attention.bias": config.flag("attention_bias", True),
        "mlp.kind": "MLP",
        "mlp.ffn_hidden_size": config.integer("intermediate_size"),
        "mlp.hidden_act": our_activation(config, "hidden_act", "gelu"),
        "mlp.bias": True,
        "norm.kind": "LayerNorm",
        "norm.eps": config.number("layer_norm_eps", 1e-5),
    }


def _neox_parts(model: Model) -> list[Part]:
    rows, width = int(model["embedding.num_embeddings"]), int(model["hidden_size"])
    layers = views(model)
    parts: list[Part] = [
        same("embedding.table.weight", "gpt_neox.embed_in.weight", rows),
        *layer_norm(layers[-1], "stack.final_layernorm", "gpt_neox.final_layer_norm"),
    ]
    if not model["tie_embeddings"]:
        parts.append(same("head.linear.weight", "embed_out.weight", rows))
    for number, layer in enumerate(layers):
        ours, theirs = f"stack.layers.{number}", f"gpt_neox.layers.{number}"
        attention, mlp = AttentionConfig.of(layer), MlpConfig.of(layer)
        order, size = _by_head(attention), attention.qkv.out_features
        parts += layer_norm(layer, f"{ours}.input_layernorm", f"{theirs}.input_layernorm")
        parts += layer_norm(layer, f"{ours}.post_layernorm", f"{theirs}.post_attention_layernorm")
        own, their = f"{ours}.attention.qkv", f"{theirs}.attention.query_key_value"
        parts.append(Link({f"{own}.weight": size}, {f"{their}.weight": size}, order=order))
        if attention.bias:
            parts.append(_bias(own, their, size, bias=True, order=order))
        products = (
            ("attention.dense", "attention.dense", width, attention.dense.bias, attention.bias),
            ("mlp.fc", "mlp.dense_h_to_4h", mlp.ffn_hidden_size, mlp.bias, True),
            ("mlp.proj", "mlp.dense_4h_to_h", width, mlp.bias, True),
        )
        for our, their, size, bias, has_one in products:
            parts.append(same(f"{ours}.{our}.weight", f"{theirs}.{their}.weight", size))
            if has_one:
                parts.append(_bias(f"{ours}.{our}", f"{theirs}.{their}", size, bias=bias))
    return parts


def _by_head(attention: AttentionConfig) -> Order:
    """Queries, keys and values of a head stand together there."""
    heads, size = attention.num_attention_heads, attention.attention_head_size
    rows = np.arange(3 * heads * size) if (halved := halved_rows(attention)) is None else halved
    return rows.reshape(3, heads, size).transpose(1, 0, 2).ravel()


_PLAIN: Mapping[str, Sequence[Scalar]] = {
    "norm.kind": ("LayerNorm",),
    "norm_position": ("pre",),
    "mlp.kind": ("MLP",),
    "embedding.kind": ("Embedding",),
    "attention.qk_norm": ("none",),
}

ARCHITECTURES = (
    Architecture(
        "GPT-2",
        "GPT2LMHeadModel",
        "gpt2",
        "decoder",
        {**_PLAIN, "attention.position_embedding_type": ("learned_absolute",), "residual": ("sequential",)},
        _gpt2,
        _our_gpt2,
        _gpt2_parts,
        BIASES,
        ignored=lambda name: name.endswith((".attn.bias", ".attn.masked_bias")),
    ),
    Architecture(
        "GPT-NeoX",
        "GPTNeoXForCausalLM",
        "gpt_neox",
        "decoder",
        {**_PLAIN, "attention.position_embedding_type": ("rope_gpt_neox",)},
        _neox,
        _our_neox,
        _neox_parts,
        BIASES - {"attention.bias"},
        ignored=lambda name: name.endswith(("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")),
    ),
)
