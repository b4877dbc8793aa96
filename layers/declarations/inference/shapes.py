"""The shapes that every trial of a sweep is measured at, if it names several: `inference.shapes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layers.parameter import Scalar

MAX_SHAPES = 8

SHAPES = "shapes"
"""The member of `inference` that names them."""

SHAPE_PARAMETERS = ("batch_size", "sequence_length", "source_length", "prompt_tokens", "new_tokens")
"""The parameters of `inference` that each shape has its own of. The others hold for all of them."""

NAME = "name"
"""The member of a shape's JSON that is none of its parameters."""

ShapeDocument = dict[str, Scalar]
"""A shape as JSON: its `name`, and its parameters."""


@dataclass(frozen=True, slots=True)
class NamedShape:
    """One of the shapes. `values` are its parameters, completed."""

    name: str
    values: Mapping[str, Scalar]

    @classmethod
    def of(cls, document: Mapping[str, Scalar]) -> NamedShape:
        return cls(str(document[NAME]), {name: value for name, value in document.items() if name != NAME})

    def document(self) -> ShapeDocument:
        """As a list in JSON has it: PostgreSQL keeps no order of a mapping's names."""
        return {NAME: self.name, **self.values}

    def section(self, inference: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The completed section `inference` of a trial at this shape."""
        shared = {name: value for name, value in inference.items() if name not in SHAPE_PARAMETERS}
        return {**self.values, **shared}


def shapes_of(documents: Sequence[Mapping[str, Scalar]]) -> tuple[NamedShape, ...]:
    """The shapes of a configuration, the first one first."""
    return tuple(map(NamedShape.of, documents))
