"""Gemma 2 and Gemma 3: norms on both sides of each layer, scales stored as what they are above one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from layers.checkpoints.architecture import Architecture, Config, Model
from layers.checkpoints.config_json import CheckpointError, ConfigJson
from layers.checkpoints.families.llama import (
    FILLS,
    TRAITS,
    Layout,
    divided_width,
    llama_config,
    llama_parts,
    llama_values,
)
from layers.checkpoints.tensors import Part
from layers.checkpoints.values import (
    layer_types,
    our_rope,
    our_scaling,
    our_windows,
    rope,
    rope_scaling,
    sliding_layers,
    windows,
)
from layers.declarations.per_layer import views
from layers.parameter import Scalar

NORMS = {
    "input_layernorm": "input_layernorm",
    "attention_output_layernorm": "post_attention_layernorm",
    "post_layernorm": "pre_feedforward_layernorm",
    "mlp_output_layernorm": "post_feedforward_layernorm",
}


def _gemma(model: Model) -> Config:
    """What both have. `query_pre_attn_scalar` is a whole number."""
    config = llama_config(model)
    act = config.pop("hidden_act")
    scaling, size = float(model["attention.q_scaling"]), int(model["attention.attention_head_size"])
    return {
        **config,
        **layer_types(model),
        "hidden_activation": act,
        "attention_bias": bool(model["attention.bias"]),
        "query_pre_attn_scalar": round(scaling**2 * size),
        "final_logit_softcapping": model.get("logits_softcap"),
    }


def _our_gemma(config: ConfigJson, every: int) -> dict[str, Scalar]:
    """`every`: of layers if nothing is said, each so-manieth sees everything."""
    config.refuse("use_bidirectional_attention", False, "a decoder sees earlier tokens alone")
    values = llama_values(config, act="hidden_activation")
    count, width = int(values["num_layers"]), int(values["hidden_size"])
    head = config.integer("head_dim", 256)
    sliding = sliding_layers(config, (number for number in range(count) if (number + 1) % every))
    cap = config.number("final_logit_softcapping") if config.has("final_logit_softcapping") else None
    return {
        **values,
        **({} if cap is None else {"logits_softcap": cap}),
        "norm_position": "sandwich",
        "tie_embeddings": config.flag("tie_word_embeddings", True),
        "embedding_scale": math.sqrt(width),
        "attention.attention_head_size": head,
        "attention.bias": config.flag("attention_bias", False),
        "attention.q_scaling": math.sqrt(config.integer("query_pre_attn_scalar", 256) / head),
        **our_windows(config, sliding),
    }


def _gemma2(model: Model) -> Config:
    return {**_gemma(model), **rope(model), "attn_logit_softcapping": model.get("attention.softcap")}


def _our_gemma2(config: ConfigJson) -> dict[str, Scalar]:
    values = {**_our_gemma(config, 2), **our_rope(config)}
    if config.has("attn_logit_softcapping"):
        values["attention.softcap"] = config.number("attn_logit_softcapping")
    return values


def _gemma3(model: Model) -> Config:
    """Layers that slide have a base of their own, and are never stretched."""
    layers, found = views(model), windows(model)
    full = next((layer for layer, window in zip(layers, found, strict=True) if window is None), None)
    local = next((layer for layer, window in zip(layers, found, strict=True) if window is not None), None)
    config = {**_gemma(model), **({} if full is None else rope(full))}
    config["rope_local_base_freq"] = float((local or layers[0])["attention.rotary_embedding_base"])
    if full is None:
        config["rope_theta"] = config["rope_local_base_freq"]
    elif (scaling := rope_scaling(full)) is not None:
        config["rope_scaling"] = scaling
    return config


def _our_gemma3(config: ConfigJson) -> dict[str, Scalar]:
    config.refuse("attn_logit_softcapping", None, "Gemma 3 does not cap scores")
    values = _our_gemma(config, config.integer("sliding_window_pattern", 6))
    rotations = config.section("rope_parameters")
    full, local = rotations.section("full_attention"), rotations.section("sliding_attention")
    scaling = our_scaling(full, config) or our_scaling(config.section("rope_scaling"), config)
    if our_scaling(local, config):
        raise CheckpointError("config.json: rope_parameters stretches layers that slide; Layersweep builds them as are")
    base = full.number("rope_theta", config.number("rope_theta", 1_000_000.0))
    values |= {"attention.rotary_embedding_base": base, **scaling}
    of_local = local.number("rope_theta", config.number("rope_local_base_freq", 10_000.0))
    sliding = [name.split(".")[1] for name in values if name.endswith(".attention.attention_mask_type")]
    for number in sliding:
        values[f"layers.{number}.attention.rotary_embedding_base"] = of_local
        if scaling:
            values[f"layers.{number}.attention.rotary_embedding_scale_type"] = "none"
    eps = values["norm.eps"]
    return {**values, "attention.qk_norm": "RmsNorm", "attention.qk_norm_eps": eps}


def _parts(*, qk_norms: bool) -> Layout:
    return Layout(NORMS, qk_norms=qk_norms, offset=-1.0)


def _gemma2_parts(model: Model) -> Sequence[Part]:
    return llama_parts(model, _parts(qk_norms=False))


def _gemma3_parts(model: Model) -> Sequence[Part]:
    return llama_parts(model, _parts(qk_norms=True))


_SANDWICH: Mapping[str, Sequence[Scalar]] = {**TRAITS, "norm_position": ("sandwich",)}

ARCHITECTURES = (
    Architecture(
        "Gemma 2",
        "Gemma2ForCausalLM",
        "gemma2",
        "decoder",
        {**_SANDWICH, "attention.qk_norm": ("none",)},
        _gemma2,
        _our_gemma2,
        _gemma2_parts,
        FILLS,
        divided_width,
    ),
    Architecture(
        "Gemma 3",
        "Gemma3ForCausalLM",
        "gemma3_text",
        "decoder",
        {**_SANDWICH, "attention.qk_norm": ("RmsNorm",), "attention.qk_norm_scope": ("head",)},
        _gemma3,
        _our_gemma3,
        _gemma3_parts,
        FILLS,
        divided_width,
    ),
)
