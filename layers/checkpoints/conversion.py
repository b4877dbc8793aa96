"""A model with its weights to a checkpoint of `transformers`, and back."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import numpy as np

from layers.checkpoints.architecture import Architecture
from layers.checkpoints.config_json import CheckpointError, ConfigJson, Json
from layers.checkpoints.matching import ARCHITECTURES, Match, completed, whole
from layers.checkpoints.tensors import Array, export_tensors, import_tensors
from layers.parameter import ParameterError, Scalar

_HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """config.json as it was understood."""

    architecture: Architecture
    model: dict[str, Scalar]
    """The completed model that it describes."""


def to_transformers(
    model: Mapping[str, Scalar],
    found: Match,
    weights: Mapping[str, Array],
    into: MutableMapping[str, Array] | None = None,
) -> MutableMapping[str, Array]:
    """The tensors of a completed model that `found` matches, by the architecture's names, in `into` if it is given.

    Raises CheckpointError.
    """
    return export_tensors(found.architecture.parts(whole(model)), weights, into)


def read_config(values: Mapping[str, Json]) -> ReadConfig:
    """What config.json describes. Raises CheckpointError if Layersweep does not build it, with the reason."""
    config = ConfigJson(values)
    architecture = _architecture(config)
    try:
        return ReadConfig(architecture, completed(architecture, dict(values)))
    except ParameterError as error:
        raise CheckpointError(f"config.json: {error}") from None


def from_transformers(
    read: ReadConfig, tensors: Mapping[str, Array], into: MutableMapping[str, Array] | None = None
) -> MutableMapping[str, Array]:
    """Their tensors by our names, in `into` if it is given. Raises CheckpointError if one is missing, or one is no
    weight of the model."""
    architecture = read.architecture
    tied = bool(read.model.get("tie_embeddings", False))
    found = import_tensors(
        architecture.parts(whole(read.model)),
        tensors,
        lambda name: architecture.ignored(name) or (tied and name in _HEADS),
        into,
    )
    for name in _HEADS:
        # A head that is tied may be stored under its own name as well.
        if tied and name in tensors and not np.array_equal(tensors[name], found["embedding.table.weight"]):
            raise CheckpointError(f"{name} is not the table, and the configuration ties the two")
    return found


def _architecture(config: ConfigJson) -> Architecture:
    names = [str(name) for name in config.items("architectures")]
    kind = config.text("model_type", "")
    for architecture in ARCHITECTURES:
        if architecture.class_name in names or (not names and architecture.model_type == kind):
            return architecture
    given = ", ".join(names) or kind or "nothing"
    known = ", ".join(architecture.class_name for architecture in ARCHITECTURES)
    raise CheckpointError(f"config.json names {given}; Layersweep reads {known}")
