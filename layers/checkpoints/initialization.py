"""Which weights of a checkpoint a model begins with: those whose names and shapes are its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layers.checkpoints.tensors import Array


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """What a model takes, by its names, and what it does not, each with the reason."""

    taken: dict[str, Array]
    not_taken: dict[str, str]


def initial_weights(offered: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> InitialWeights:
    """What a model of these tensors takes of a checkpoint. Gates and up projections fit whether or not they are one
    product."""
    taken: dict[str, Array] = {}
    not_taken: dict[str, str] = {}
    for name, shape in shapes.items():
        tensor = _offered(offered, name)
        if tensor is None:
            not_taken[name] = "the checkpoint has none"
        elif tensor.shape != shape:
            not_taken[name] = f"{_in_words(tensor.shape)} in the checkpoint, {_in_words(shape)} here"
        else:
            taken[name] = tensor
    return InitialWeights(taken, not_taken)


def _offered(offered: Mapping[str, Array], name: str) -> Array | None:
    if name in offered:
        return offered[name]
    head, _, suffix = name.rpartition(".")
    block, _, part = head.rpartition(".")
    if part == "fused_fc":
        halves = [offered.get(f"{block}.{half}.{suffix}") for half in ("gate", "up")]
        found = [half for half in halves if half is not None]
        return np.concatenate(found) if len(found) == len(halves) else None
    fused = offered.get(f"{block}.fused_fc.{suffix}")
    if part not in ("gate", "up") or fused is None:
        return None
    return np.split(fused, 2)[part == "up"]


def _in_words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
