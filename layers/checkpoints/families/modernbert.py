"""ModernBERT: rotations, windows that slide in both directions, and no norm before the first attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layers.checkpoints.architecture import Architecture, Config, Model
from layers.checkpoints.blocks import product
from layers.checkpoints.config_json import CheckpointError, ConfigJson
from layers.checkpoints.rotations import halved_rows
from layers.checkpoints.tensors import Constant, Link, Part, same
from layers.checkpoints.values import (
    NO_TOKENS,
    activation,
    activation_of,
    classes_of,
    for_layers,
    head_size,
    layer_types,
    our_activation,
    our_scaling,
    rope_scaling,
    sliding_layers,
)
from layers.declarations.attention import AttentionConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.per_layer import views
from layers.parameter import Scalar

_POOLING = {"cls": "pooler", "mean": "mean_pooler"}
_BASES = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}
"""Of rotations, if nothing is said."""
_BASE_NAMES = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
"""What earlier versions of `transformers` call them."""


def _config(model: Model) -> Config:
    first = views(model)[0]
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "hidden_size": int(model["hidden_size"]),
        "intermediate_size": int(model["mlp.ffn_hidden_size"]),
        "num_hidden_layers": len(views(model)),
        "num_attention_heads": int(model["attention.num_attention_heads"]),
        "hidden_activation": activation(model),
        "max_position_embeddings": int(model["attention.max_position_embeddings"]),
        "norm_eps": float(model["norm.eps"]),
        "norm_bias": bool(first.get("norm.bias", False)),
        "attention_bias": bool(first["attention.bias"]),
        "mlp_bias": bool(first["mlp.bias"]),
        **_windows(model),
        **_rotations(model),
        "classifier_pooling": next(their for their, our in _POOLING.items() if our == model["pooling"]),
        "classifier_activation": activation_of(str(model.get("pooler_act", "tanh"))),
        "classifier_bias": bool(model.get("pooler_bias", True)),
        "num_labels": int(model["classes"]),
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "classifier_dropout": 0.0,
        "cls_token_id": None,
        "sep_token_id": None,
        **NO_TOKENS,
    }


def _windows(model: Model) -> Config:
    """`local_attention` is the tokens on both sides that a token sees, without itself."""
    found = layer_types(model)
    window = found.pop("sliding_window")
    return {**found, "local_attention": 2 * (window - 1)} if isinstance(window, int) else found


def _rotations(model: Model) -> Config:
    """Of the layers that see everything and of those that slide: each has its base, by new names and by old."""
    types = layer_types(model)["layer_types"]
    assert isinstance(types, list)
    rotations: Config = {}
    config: Config = {"rope_parameters": rotations}
    for kind, base in _BASES.items():
        layer = next((layer for layer, its in zip(views(model), types, strict=True) if its == kind), None)
        scaling = None if layer is None else rope_scaling(layer)
        theta = base if layer is None else float(layer.get("attention.rotary_embedding_base", base))
        rotations[kind] = {"rope_type": "default", **(scaling or {}), "rope_theta": theta}
        config[_BASE_NAMES[kind]] = theta
    return config


def _values(config: ConfigJson) -> dict[str, Scalar]:
    width, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12)
    count, pooling = config.integer("num_hidden_layers", 22), config.text("classifier_pooling", "cls")
    if pooling not in _POOLING:
        raise CheckpointError(f"config.json: classifier_pooling is {pooling!r}, not {' or '.join(_POOLING)}")
    every = config.integer("global_attn_every_n_layers", 3)
    sliding = sliding_layers(config, (number for number in range(count) if number % max(every, 1)))
    return {
        "kind": "encoder",
        "num_layers": count,
        "hidden_size": width,
        "norm_position": "pre",
        "has_embedding_layernorm": True,
        "skip_first_norm": True,
        "pooling": _POOLING[pooling],
        "pooler_act": our_activation(config, "classifier_activation", "gelu"),
        "pooler_bias": config.flag("classifier_bias", False),
        "pooler_norm": True,
        "classes": classes_of(config),
        "embedding.num_embeddings": config.integer("vocab_size"),
        "attention.num_attention_heads": heads,
        "attention.attention_head_size": head_size(width, heads),
        "attention.attention_mask_type": "padding",
        "attention.max_position_embeddings": config.integer("max_position_embeddings", 8192),
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.bias": config.flag("attention_bias", False),
        "mlp.kind": "GatedMLP",
        "mlp.ffn_hidden_size": config.integer("intermediate_size", 1152),
        "mlp.hidden_act": our_activation(config, "hidden_activation", "gelu"),
        "mlp.bias": config.flag("mlp_bias", False),
        "norm.kind": "LayerNorm",
        "norm.eps": config.number("norm_eps", 1e-5),
        "norm.bias": config.flag("norm_bias", False),
        **_our_rotation(config, "full_attention"),
        **for_layers(sliding, _our_sliding(config)),
    }


def _our_sliding(config: ConfigJson) -> dict[str, Scalar]:
    return {
        "attention.attention_mask_type": "sliding_window",
        "attention.max_attention_window_size": config.integer("local_attention", 128) // 2 + 1,
        **_our_rotation(config, "sliding_attention"),
    }


def _our_rotation(config: ConfigJson, kind: str) -> dict[str, Scalar]:
    config.refuse("rope_scaling", None, "Layersweep reads ModernBERT's rotations from rope_parameters")
    rotation = config.section("rope_parameters").section(kind)
    theta = rotation.number("rope_theta", config.number(_BASE_NAMES[kind], _BASES[kind]))
    scaling = our_scaling(rotation, config) or {"attention.rotary_embedding_scale_type": "none"}
    return {"attention.rotary_embedding_base": theta, **scaling}


def _parts(model: Model) -> list[Part]:
    layers = views(model)
    width = int(model["hidden_size"])
    parts: list[Part] = [
        same(
            "embedding.table.weight", "model.embeddings.tok_embeddings.weight", int(model["embedding.num_embeddings"])
        ),
        *_norm(layers[0], "stack.embedding_layernorm", "model.embeddings.norm"),
        *_norm(layers[-1], "stack.final_layernorm", "model.final_norm"),
        *_product("pooler", "head.dense", width, bias=bool(model.get("pooler_bias", True))),
        *_norm(layers[-1], "pooler_norm", "head.norm"),
        *product("classifier", "classifier", int(model["classes"]), bias=bool(model.get("head_bias", True))),
    ]
    for number, layer in enumerate(layers):
        ours, theirs = f"stack.layers.{number}", f"model.layers.{number}"
        attention, mlp = AttentionConfig.of(layer), MlpConfig.of(layer)
        order, rows = halved_rows(attention), attention.qkv.out_features
        gates = ("fused_fc",) if mlp.kind == "FusedGatedMLP" else ("gate", "up")
        for suffix in ("weight", "bias") if attention.bias else ("weight",):
            qkv = {f"{theirs}.attn.Wqkv.{suffix}": rows}
            parts.append(Link({f"{ours}.attention.qkv.{suffix}": rows}, qkv, order=order))
        parts += _product(f"{ours}.attention.dense", f"{theirs}.attn.Wo", width, bias=attention.dense.bias)
        inner = 2 * mlp.ffn_hidden_size
        for suffix in ("weight", "bias") if mlp.bias else ("weight",):
            own = {f"{ours}.mlp.{gate}.{suffix}": inner // len(gates) for gate in gates}
            parts.append(Link(own, {f"{theirs}.mlp.Wi.{suffix}": inner}))
        parts += _product(f"{ours}.mlp.proj", f"{theirs}.mlp.Wo", width, bias=mlp.bias)
        if number:
            parts += _norm(layer, f"{ours}.input_layernorm", f"{theirs}.attn_norm")
        parts += _norm(layer, f"{ours}.post_layernorm", f"{theirs}.mlp_norm")
    return parts


def _product(ours: str, theirs: str, rows: int, *, bias: bool) -> list[Part]:
    """A product that has a bias there if it has one here."""
    return product(ours, theirs, rows, bias=bias, has_one=bias)


def _norm(layer: Model, ours: str, theirs: str) -> list[Part]:
    """A LayerNorm that has a shift there if it has one here."""
    width = int(layer["hidden_size"])
    scale = f"{theirs}.weight"
    parts: list[Part] = [
        same(f"{ours}.weight", scale, width) if layer["norm.elementwise_affine"] else Constant(scale, (width,), 1.0)
    ]
    return [*parts, same(f"{ours}.bias", f"{theirs}.bias", width)] if layer.get("norm.bias", False) else parts


_TRAITS: Mapping[str, Sequence[Scalar]] = {
    "norm_position": ("pre",),
    "norm.kind": ("LayerNorm",),
    "has_embedding_layernorm": (True,),
    "skip_first_norm": (True,),
    "pooling": tuple(_POOLING.values()),
    "pooler_norm": (True,),
    "mlp.kind": ("GatedMLP",),
    "attention.position_embedding_type": ("rope_gpt_neox",),
    "embedding.kind": ("Embedding",),
}

ARCHITECTURES = (
    Architecture(
        "ModernBERT",
        "ModernBertForSequenceClassification",
        "modernbert",
        "encoder",
        _TRAITS,
        _config,
        _values,
        _parts,
        frozenset({"norm.elementwise_affine", "head_bias"}),
    ),
)
