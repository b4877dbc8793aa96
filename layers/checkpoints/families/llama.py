"""Llama and those who changed little of it: Mistral, Qwen2, Qwen3, OLMo 2, SmolLM3, Granite and Phi-3."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layers.checkpoints.architecture import Architecture, Config, Model
from layers.checkpoints.config_json import ConfigJson
from layers.checkpoints.rotations import halved_rows
from layers.checkpoints.tensors import Constant, Link, Part, same
from layers.checkpoints.values import (
    NO_TOKENS,
    activation,
    for_layers,
    layer_types,
    our_activation,
    our_rope,
    our_windows,
    rope,
    sliding_layers,
    windows,
)
from layers.declarations.attention import AttentionConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.per_layer import views
from layers.parameter import Scalar

NORMS = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}
BRANCH_NORMS = {"input_layernorm": "post_attention_layernorm", "post_layernorm": "post_feedforward_layernorm"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tensors of a relative of Llama differ from Llama's."""

    norms: Mapping[str, str]
    """Ours -> theirs, of one block."""
    qk_norms: bool = False
    offset: float = 0.0
    """Of the scales of norms: theirs multiply by 1 - offset + weight."""
    fused: bool = False
    """Queries, keys and values are one tensor; gate and up projection, too."""


def llama_config(model: Model) -> Config:
    """The fields that all of them have."""
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "hidden_size": int(model["hidden_size"]),
        "intermediate_size": int(model["mlp.ffn_hidden_size"]),
        "num_hidden_layers": len(views(model)),
        "num_attention_heads": int(model["attention.num_attention_heads"]),
        "num_key_value_heads": int(model["attention.num_kv_heads"]),
        "head_dim": int(model["attention.attention_head_size"]),
        "hidden_act": activation(model),
        "max_position_embeddings": int(model["attention.max_position_embeddings"]),
        "rms_norm_eps": float(model["norm.eps"]),
        "tie_word_embeddings": bool(model["tie_embeddings"]),
        **NO_TOKENS,
    }


def llama_values(config: ConfigJson, *, act: str = "hidden_act") -> dict[str, Scalar]:
    """The same, read."""
    heads, width = config.integer("num_attention_heads"), config.integer("hidden_size")
    return {
        "kind": "decoder",
        "num_layers": config.integer("num_hidden_layers"),
        "hidden_size": width,
        "tie_embeddings": config.flag("tie_word_embeddings", False),
        "embedding.num_embeddings": config.integer("vocab_size"),
        "attention.num_attention_heads": heads,
        "attention.num_kv_heads": config.integer("num_key_value_heads", heads),
        "attention.attention_head_size": config.integer("head_dim", width // max(heads, 1)),
        "attention.max_position_embeddings": config.integer("max_position_embeddings", 2048),
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.bias": False,
        "mlp.kind": "GatedMLP",
        "mlp.ffn_hidden_size": config.integer("intermediate_size"),
        "mlp.hidden_act": our_activation(config, act, "silu"),
        "mlp.bias": False,
        "norm.kind": "RmsNorm",
        "norm.eps": config.number("rms_norm_eps", 1e-6),
    }


def llama_parts(model: Model, layout: Layout) -> list[Part]:
    """The tensors of a whole model."""
    rows, width = int(model["embedding.num_embeddings"]), int(model["hidden_size"])
    parts: list[Part] = [same("embedding.table.weight", "model.embed_tokens.weight", rows)]
    if not model["tie_embeddings"]:
        parts.append(same("head.linear.weight", "lm_head.weight", rows))
    layers = views(model)
    parts.append(_scale(layers[-1], "stack.final_layernorm", "model.norm", width, layout))
    for number, layer in enumerate(layers):
        parts += _block(layer, f"stack.layers.{number}", f"model.layers.{number}", layout)
    return parts


def _block(layer: Model, ours: str, theirs: str, layout: Layout) -> list[Part]:
    width = int(layer["hidden_size"])
    norms = [_scale(layer, f"{ours}.{our}", f"{theirs}.{their}", width, layout) for our, their in layout.norms.items()]
    return [
        *norms,
        *_attention(layer, f"{ours}.attention", f"{theirs}.self_attn", layout),
        *_mlp(layer, f"{ours}.mlp", f"{theirs}.mlp", layout),
    ]


def _scale(layer: Model, ours: str, theirs: str, width: int, layout: Layout) -> Part:
    if not layer["norm.elementwise_affine"]:
        return Constant(f"{theirs}.weight", (width,), 1.0 + layout.offset)
    return same(f"{ours}.weight", f"{theirs}.weight", width, offset=layout.offset)


def _attention(layer: Model, ours: str, theirs: str, layout: Layout) -> list[Part]:
    attention = AttentionConfig.of(layer)
    queries, keys = attention.query.out_features, attention.key_value.out_features // 2
    order = halved_rows(attention)
    parts: list[Part] = [same(f"{ours}.dense.weight", f"{theirs}.o_proj.weight", attention.hidden_size)]
    for suffix in ("weight", "bias") if attention.bias else ("weight",):
        their = {
            f"{theirs}.{name}_proj.{suffix}": size for name, size in zip("qkv", (queries, keys, keys), strict=True)
        }
        if layout.fused:
            their = {f"{theirs}.qkv_proj.{suffix}": queries + 2 * keys}
        parts.append(Link({f"{ours}.qkv.{suffix}": queries + 2 * keys}, their, order=order))
    if attention.dense.bias:
        parts.append(same(f"{ours}.dense.bias", f"{theirs}.o_proj.bias", attention.hidden_size))
    if layout.qk_norms:
        for name, norm in (("q", attention.query_norm), ("k", attention.key_norm)):
            width = norm.width if norm else 0
            own = {f"{ours}.{name}_layernorm.weight": width}
            places = None if order is None else halved_rows(attention, within=width)
            parts.append(Link(own, {f"{theirs}.{name}_norm.weight": width}, order=places, offset=layout.offset))
    return parts


def _mlp(layer: Model, ours: str, theirs: str, layout: Layout) -> list[Part]:
    mlp = MlpConfig.of(layer)
    inner = mlp.ffn_hidden_size
    parts: list[Part] = []
    for suffix in ("weight", "bias") if mlp.bias else ("weight",):
        own = {f"{ours}.gate.{suffix}": inner, f"{ours}.up.{suffix}": inner}
        if mlp.kind == "FusedGatedMLP":
            own = {f"{ours}.fused_fc.{suffix}": 2 * inner}
        their = {f"{theirs}.gate_proj.{suffix}": inner, f"{theirs}.up_proj.{suffix}": inner}
        if layout.fused:
            their = {f"{theirs}.gate_up_proj.{suffix}": 2 * inner}
        parts.append(Link(own, their))
        parts.append(same(f"{ours}.proj.{suffix}", f"{theirs}.down_proj.{suffix}", int(layer["hidden_size"])))
    return parts


_BLOCK: Mapping[str, Sequence[Scalar]] = {
    "norm.kind": ("RmsNorm",),
    "mlp.kind": ("GatedMLP",),
    "residual": ("sequential",),
    "embedding.kind": ("Embedding",),
}
TRAITS: Mapping[str, Sequence[Scalar]] = {
    **_BLOCK,
    "attention.position_embedding_type": ("rope_gpt_neox",),
    "norm_position": ("pre",),
}
_NO_QK_NORM: Mapping[str, Sequence[Scalar]] = {"attention.qk_norm": ("none",)}
FILLS = frozenset({"norm.elementwise_affine"})


def divided_width(model: Model) -> str | None:
    """Configurations that refuse a width which the heads do not divide, although heads have a size of their own."""
    width, heads = int(model["hidden_size"]), int(model["attention.num_attention_heads"])
    return f"hidden_size {width} is not a multiple of {heads} heads" if width % heads else None


# --- Llama ----------------------------------------------------------------------------------------------------------


def _llama(model: Model) -> Config:
    return {
        **llama_config(model),
        **rope(model),
        "attention_bias": bool(model["attention.bias"]),
        "mlp_bias": bool(model["mlp.bias"]),
    }


def _our_llama(config: ConfigJson) -> dict[str, Scalar]:
    return {
        **llama_values(config),
        **our_rope(config),
        "attention.bias": config.flag("attention_bias", False),
        "mlp.bias": config.flag("mlp_bias", False),
    }


# --- Mistral --------------------------------------------------------------------------------------------------------


def _mistral(model: Model) -> Config:
    return {**llama_config(model), **rope(model), "sliding_window": windows(model)[0]}


def _our_mistral(config: ConfigJson) -> dict[str, Scalar]:
    values = {**llama_values(config), **our_rope(config)}
    if config.has("sliding_window"):
        values["attention.attention_mask_type"] = "sliding_window_causal"
        values["attention.max_attention_window_size"] = config.integer("sliding_window")
    return values


# --- Qwen -----------------------------------------------------------------------------------------------------------


def _sliding(model: Model) -> Config:
    found = layer_types(model)
    slides = found["sliding_window"] is not None
    # `max_window_layers` says the same to versions that do not read `layer_types`, if the last layers slide.
    first = windows(model).index(found["sliding_window"]) if isinstance(found["sliding_window"], int) else None
    return {**found, "use_sliding_window": slides, "max_window_layers": len(views(model)) if first is None else first}


def _our_sliding(config: ConfigJson) -> dict[str, Scalar]:
    if not config.flag("use_sliding_window", False) or not config.has("sliding_window"):
        return {}
    layers = range(config.integer("max_window_layers", 28), config.integer("num_hidden_layers"))
    return our_windows(config, sliding_layers(config, layers))


def _qwen2(model: Model) -> Config:
    return {**llama_config(model), **rope(model), **_sliding(model)}


def _our_qwen2(config: ConfigJson) -> dict[str, Scalar]:
    biases = {"attention.bias": True, "attention.dense_bias": False}
    return {**llama_values(config), **our_rope(config), **biases, **_our_sliding(config)}


def _qwen3(model: Model) -> Config:
    return {**_qwen2(model), "attention_bias": bool(model["attention.bias"])}


def _our_qwen3(config: ConfigJson) -> dict[str, Scalar]:
    values = {**llama_values(config), **our_rope(config), **_our_sliding(config)}
    values["attention.attention_head_size"] = config.integer("head_dim", 128)
    values["attention.bias"] = config.flag("attention_bias", False)
    return {**values, "attention.qk_norm": "RmsNorm", "attention.qk_norm_eps": values["norm.eps"]}


# --- OLMo 2 ---------------------------------------------------------------------------------------------------------


def _olmo2(model: Model) -> Config:
    return {**llama_config(model), **rope(model), "attention_bias": bool(model["attention.bias"])}


def _our_olmo2(config: ConfigJson) -> dict[str, Scalar]:
    values = {**llama_values(config), **our_rope(config), "attention.bias": config.flag("attention_bias", False)}
    values["norm.eps"] = config.number("rms_norm_eps", 1e-5)
    qk_norm = {"attention.qk_norm": "RmsNorm", "attention.qk_norm_eps": values["norm.eps"]}
    return {**values, **qk_norm, "norm_position": "branch", "attention.qk_norm_scope": "width"}


# --- SmolLM3 --------------------------------------------------------------------------------------------------------


def _smollm3(model: Model) -> Config:
    layers = views(model)
    rotated = [int(layer["attention.position_embedding_type"] != "none") for layer in layers]
    first = next((layer for layer, turns in zip(layers, rotated, strict=True) if turns), layers[0])
    biases: Config = {"attention_bias": bool(model["attention.bias"]), "mlp_bias": bool(model["mlp.bias"])}
    return {**llama_config(model), **rope(first), **biases, **layer_types(model), "no_rope_layers": rotated}


def _our_smollm3(config: ConfigJson) -> dict[str, Scalar]:
    count, interval = config.integer("num_hidden_layers"), config.integer("no_rope_layer_interval", 4)
    rotated = config.items("no_rope_layers") or [(number + 1) % interval for number in range(count)]
    still = [number for number, turns in enumerate(rotated) if not turns]
    values = {
        **_our_llama(config),
        "attention.rotary_embedding_base": our_rope(config, default=2_000_000.0)["attention.rotary_embedding_base"],
        "tie_embeddings": config.flag("tie_word_embeddings", True),
    }
    sliding = our_windows(config, sliding_layers(config, ()))
    return {**values, **for_layers(still, {"attention.position_embedding_type": "none"}), **sliding}


# --- Granite --------------------------------------------------------------------------------------------------------


def _granite(model: Model) -> Config:
    scale = 1.0 / (float(model["attention.q_scaling"]) * math.sqrt(int(model["attention.attention_head_size"])))
    return {
        **_llama(model),
        "embedding_multiplier": float(model.get("embedding_scale", 1.0)),
        "residual_multiplier": float(model.get("residual_scale", 1.0)),
        "logits_scaling": 1.0 / float(model.get("logits_scale", 1.0)),
        "attention_multiplier": scale,
    }


def _our_granite(config: ConfigJson) -> dict[str, Scalar]:
    values = _our_llama(config)
    root = math.sqrt(int(values["attention.attention_head_size"]))
    return {
        **values,
        "embedding_scale": config.number("embedding_multiplier", 1.0),
        "residual_scale": config.number("residual_multiplier", 1.0),
        "logits_scale": 1.0 / config.number("logits_scaling", 1.0),
        "attention.q_scaling": 1.0 / (config.number("attention_multiplier", 1.0) * root),
    }


# --- Phi-3 ----------------------------------------------------------------------------------------------------------


def _phi3(model: Model) -> Config:
    share = float(model.get("attention.rotary_embedding_percentage", 1.0))
    own: Config = {"partial_rotary_factor": share, "sliding_window": windows(model)[0]}
    longest = int(model["attention.max_position_embeddings"])
    return {**llama_config(model), **rope(model), **own, "original_max_position_embeddings": longest}


def _our_phi3(config: ConfigJson) -> dict[str, Scalar]:
    rotation = config.section("rope_parameters")
    share = rotation.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    values = {**_our_mistral(config), "attention.rotary_embedding_percentage": share}
    values["norm.eps"] = config.number("rms_norm_eps", 1e-5)
    return values


def _named(layout: Layout) -> Callable[[Model], Sequence[Part]]:
    return lambda model: llama_parts(model, layout)


_LLAMA, _QK = _named(Layout(NORMS)), _named(Layout(NORMS, qk_norms=True))
_QK_BY_HEAD: Mapping[str, Sequence[Scalar]] = {"attention.qk_norm": ("RmsNorm",), "attention.qk_norm_scope": ("head",)}
_QK_BY_WIDTH = {"attention.qk_norm": ("RmsNorm",), "attention.qk_norm_scope": ("width",), "norm_position": ("branch",)}
_OR_NONE = {"attention.position_embedding_type": ("rope_gpt_neox", "none")}


def _llama_like(
    name: str,
    model_type: str,
    config: Callable[[Model], Config],
    values: Callable[[ConfigJson], dict[str, Scalar]],
    *,
    traits: Mapping[str, Sequence[Scalar]] = _NO_QK_NORM,
    parts: Callable[[Model], Sequence[Part]] = _LLAMA,
    forbids: Callable[[Model], str | None] = lambda model: None,
    class_name: str = "",
) -> Architecture:
    return Architecture(
        name,
        class_name or f"{name}ForCausalLM",
        model_type,
        "decoder",
        {**TRAITS, **traits},
        config,
        values,
        parts,
        FILLS,
        forbids,
        lambda tensor: tensor.endswith("rotary_emb.inv_freq"),
    )


ARCHITECTURES = (
    _llama_like("Llama", "llama", _llama, _our_llama, forbids=divided_width),
    _llama_like("Mistral", "mistral", _mistral, _our_mistral),
    _llama_like("Qwen2", "qwen2", _qwen2, _our_qwen2),
    _llama_like("Qwen3", "qwen3", _qwen3, _our_qwen3, traits=_QK_BY_HEAD, parts=_QK),
    _llama_like(
        "OLMo 2",
        "olmo2",
        _olmo2,
        _our_olmo2,
        traits=_QK_BY_WIDTH,
        parts=_named(Layout(BRANCH_NORMS, qk_norms=True)),
        class_name="Olmo2ForCausalLM",
    ),
    _llama_like(
        "Phi-3", "phi3", _phi3, _our_phi3, parts=_named(Layout(NORMS, fused=True)), class_name="Phi3ForCausalLM"
    ),
    _llama_like("SmolLM3", "smollm3", _smollm3, _our_smollm3, traits={**_NO_QK_NORM, **_OR_NONE}),
    _llama_like("Granite", "granite", _granite, _our_granite),
)
