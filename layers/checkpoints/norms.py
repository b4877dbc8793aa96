"""Norms of both sides: scales and shifts, or what takes their place where ours has none."""

from __future__ import annotations

from layers.checkpoints.architecture import Model
from layers.checkpoints.tensors import Constant, Part, same


def layer_norm(layer: Model, ours: str, theirs: str) -> list[Part]:
    """A LayerNorm over the width, that has both there."""
    width = int(layer["hidden_size"])
    scaled, shifted = bool(layer["norm.elementwise_affine"]), bool(layer.get("norm.bias", False))
    scale, shift = f"{theirs}.weight", f"{theirs}.bias"
    return [
        same(f"{ours}.weight", scale, width) if scaled else Constant(scale, (width,), 1.0),
        same(f"{ours}.bias", shift, width) if shifted else Constant(shift, (width,), 0.0),
    ]
