"""Parts of a block as most architectures have them: norms, and products with their biases."""

from __future__ import annotations

from collections.abc import Mapping

from layers.checkpoints.architecture import Model
from layers.checkpoints.tensors import Constant, Link, Part, same
from layers.declarations.attention import AttentionConfig

Names = Mapping[str, str]
"""Of queries, keys, values and the output: "q", "k", "v" and "o"."""


def layer_norm(layer: Model, ours: str, theirs: str) -> list[Part]:
    """A LayerNorm over the width, that has a scale and a shift there."""
    width = int(layer["hidden_size"])
    scaled, shifted = bool(layer["norm.elementwise_affine"]), bool(layer.get("norm.bias", False))
    scale, shift = f"{theirs}.weight", f"{theirs}.bias"
    return [
        same(f"{ours}.weight", scale, width) if scaled else Constant(scale, (width,), 1.0),
        same(f"{ours}.bias", shift, width) if shifted else Constant(shift, (width,), 0.0),
    ]


def product(ours: str, theirs: str, rows: int, *, bias: bool, has_one: bool = True) -> list[Part]:
    """A matrix, and its bias if theirs `has_one`: zeros if ours has none."""
    parts: list[Part] = [same(f"{ours}.weight", f"{theirs}.weight", rows)]
    if has_one:
        own = f"{theirs}.bias"
        parts.append(same(f"{ours}.bias", own, rows) if bias else Constant(own, (rows,), 0.0))
    return parts


def attention(config: AttentionConfig, ours: str, theirs: str, names: Names, *, has_biases: bool) -> list[Part]:
    """Attention whose queries, keys and values are products apart there."""
    queries, keys = config.query.out_features, config.key_value.out_features // 2
    sizes = {"q": queries, "k": keys, "v": keys}
    own = {"query": "q", "key_value": "kv"} if config.cross_attention else {"qkv": "qkv"}
    parts = product(
        f"{ours}.dense", f"{theirs}.{names['o']}", config.hidden_size, bias=config.dense.bias, has_one=has_biases
    )
    for name, letters in own.items():
        for suffix in ("weight", "bias") if config.bias else ("weight",):
            their = {f"{theirs}.{names[letter]}.{suffix}": sizes[letter] for letter in letters}
            parts.append(Link({f"{ours}.{name}.{suffix}": sum(their.values())}, their))
    if has_biases and not config.bias:
        parts += [Constant(f"{theirs}.{names[letter]}.bias", (size,), 0.0) for letter, size in sizes.items()]
    return parts
