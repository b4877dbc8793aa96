"""What the configurations of several architectures have in common: names of activations, rotations, token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layers.checkpoints.architecture import Config, Model
from layers.checkpoints.config_json import CheckpointError, ConfigJson
from layers.declarations.masks import SLIDING_MASKS
from layers.declarations.per_layer import views
from layers.parameter import Scalar

ACTIVATIONS: Mapping[str, str] = {
    "relu": "relu",
    "tanh": "tanh",
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_fast",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "quick_gelu": "quick_gelu",
    "squared-relu": "relu2",
    "identity": "linear",
}
"""Ours by name -> theirs."""

_OURS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"swish": "silu"}

NO_TOKENS: Config = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""A text has no special tokens: none begins it, ends it or fills it up."""


def activation(model: Model) -> str:
    return activation_of(str(model["mlp.hidden_act"]))


def activation_of(ours: str) -> str:
    """Their name; of an activation that they lack ours, which no configuration has."""
    return ACTIVATIONS.get(ours, ours)


def our_activation(config: ConfigJson, name: str, default: str | None = None) -> str:
    return our_activation_of(config.text(name, default))


def our_activation_of(theirs: str) -> str:
    """Our name of an activation. Raises CheckpointError if it is not built."""
    if theirs not in _OURS:
        raise CheckpointError(f"config.json: the activation {theirs!r} is not built; {', '.join(sorted(_OURS))} are")
    return _OURS[theirs]


def head_size(width: int, heads: int) -> int:
    """The size of heads that share the width. Raises CheckpointError if they cannot."""
    if heads < 1 or width % heads:
        raise CheckpointError(f"config.json: the width {width} is not a multiple of {heads} heads")
    return width // heads


def classes_of(config: ConfigJson) -> int:
    """How many classes a classifier tells apart."""
    names = config.section("id2label").names()
    return len(names) if names else config.integer("num_labels", 2)


def rope(model: Model) -> Config:
    """The keys that every version of `transformers` reads, and other programs with it."""
    config: Config = {"rope_theta": float(model.get("attention.rotary_embedding_base", 10_000.0))}
    if (scaling := rope_scaling(model)) is not None:
        config["rope_scaling"] = scaling
    return config


def rope_scaling(model: Model) -> Config | None:
    kind = str(model.get("attention.rotary_embedding_scale_type", "none"))
    if kind == "none":
        return None
    scaling: Config = {"rope_type": kind, "factor": float(model["attention.rotary_embedding_scale"])}
    for name in _SCALING_FIELDS[kind]:
        scaling[name] = model[_OUR_SCALING[name]]
    return scaling


_OUR_SCALING = {
    "original_max_position_embeddings": "attention.original_max_position_embeddings",
    "low_freq_factor": "attention.rotary_embedding_low_freq_factor",
    "high_freq_factor": "attention.rotary_embedding_high_freq_factor",
    "beta_fast": "attention.rotary_embedding_beta_fast",
    "beta_slow": "attention.rotary_embedding_beta_slow",
}
_SCALING_FIELDS: Mapping[str, Sequence[str]] = {
    "linear": (),
    "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    "yarn": ("original_max_position_embeddings", "beta_fast", "beta_slow"),
}
_DEFAULTS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0}


def our_rope(config: ConfigJson, *, base: str = "rope_theta", default: float = 10_000.0) -> dict[str, Scalar]:
    """The rotation that config.json describes, in the words of this or of earlier versions of `transformers`."""
    rotation = config.section("rope_parameters" if config.has("rope_parameters") else "rope_scaling")
    theta = rotation.number("rope_theta", config.number(base, default))
    return {"attention.rotary_embedding_base": theta, **our_scaling(rotation, config)}


def our_scaling(rotation: ConfigJson, config: ConfigJson) -> dict[str, Scalar]:
    kind = rotation.text("rope_type", rotation.text("type", "default"))
    if kind == "default":
        return {}
    if kind not in _SCALING_FIELDS:
        raise CheckpointError(f"rotations of the type {kind!r} are not built: one of {', '.join(_SCALING_FIELDS)}")
    for name in ("attention_factor", "mscale", "mscale_all_dim"):
        rotation.refuse(name, None, "Layersweep builds yarn with the factor that follows from its scale")
    rotation.refuse("truncate", True, "Layersweep rounds the ends of yarn's ramp")
    values: dict[str, Scalar] = {
        "attention.rotary_embedding_scale_type": kind,
        "attention.rotary_embedding_scale": rotation.number("factor"),
    }
    for name in _SCALING_FIELDS[kind]:
        if name in _DEFAULTS:
            values[_OUR_SCALING[name]] = rotation.number(name, _DEFAULTS[name])
        else:
            values[_OUR_SCALING[name]] = rotation.integer(name, config.integer("max_position_embeddings", 2048))
    return values


def for_layers(numbers: Iterable[int], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The same values of single layers."""
    return {f"layers.{number}.{path}": value for number in numbers for path, value in values.items()}


def windows(model: Model) -> list[int | None]:
    """Each layer's sliding window; None if it has none."""
    return [
        int(layer["attention.max_attention_window_size"])
        if layer["attention.attention_mask_type"] in SLIDING_MASKS
        else None
        for layer in views(model)
    ]


def layer_types(model: Model) -> Config:
    """Which layers slide, and the window of the first that does."""
    found = windows(model)
    width = next((each for each in found if each is not None), None)
    types = ["full_attention" if each is None else "sliding_attention" for each in found]
    return {"layer_types": types, "sliding_window": width}


def our_windows(config: ConfigJson, sliding: Iterable[int]) -> dict[str, Scalar]:
    """The masks of layers that slide."""
    numbers = list(sliding)
    if not numbers:
        return {}
    window = config.integer("sliding_window")
    return for_layers(
        numbers,
        {"attention.attention_mask_type": "sliding_window_causal", "attention.max_attention_window_size": window},
    )


def sliding_layers(config: ConfigJson, default: Iterable[int]) -> list[int]:
    """The layers that `layer_types` says slide; if it is not given, `default`."""
    if not config.has("layer_types"):
        return list(default)
    types = config.items("layer_types")
    for each in types:
        if each not in ("full_attention", "sliding_attention"):
            raise CheckpointError(
                f"config.json: layer_types has {each!r}; Layersweep builds full and sliding attention"
            )
    return [number for number, each in enumerate(types) if each == "sliding_attention"]
