"""What is known of one architecture of `transformers`, and the completed model that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layers.checkpoints.config_json import ConfigJson, Json
from layers.checkpoints.tensors import Part
from layers.parameter import Scalar

Model = Mapping[str, Scalar]
"""A completed model, or one layer of it by itself."""
Config = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One class of `transformers` that computes what some of our models do.

    `config` and `values` are each other's inverse: a model is of this architecture if what its configuration says,
    read back, is the same model.
    """

    name: str
    """As people call it."""
    class_name: str
    model_type: str
    kind: str
    """Our kind of model."""
    traits: Mapping[str, Sequence[Scalar]]
    """What all of its models have, which is looked at first."""
    config: Callable[[Model], Config]
    """The values of config.json for a completed model."""
    values: Callable[[ConfigJson], dict[str, Scalar]]
    """The parameters of our model that config.json describes. Raises CheckpointError."""
    parts: Callable[[Model], Sequence[Part]]
    """The tensors of both sides for a completed model."""
    fills: frozenset[str] = frozenset()
    """Parameters that say whether a weight is there: if ours has none, zeros (scales: ones) take its place."""
    forbids: Callable[[Model], str | None] = lambda model: None
    """What of a model that could be written the class itself refuses."""
    ignored: Callable[[str], bool] = lambda name: False
    """Tensors of its checkpoints that are no weights."""


BIASES = frozenset({"attention.bias", "attention.dense_bias", "mlp.bias", "norm.bias", "norm.elementwise_affine"})
