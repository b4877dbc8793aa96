"""What a trial is executed by: its configuration as JSON has it, and as it was understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from layers.declarations.inference.parameters import InferenceConfig
from layers.declarations.inference.shapes import NamedShape, ShapeDocument, shapes_of
from layers.declarations.training import TrainingConfig
from layers.parameter import Scalar


class Sections(TypedDict):
    """The completed sections of a point, each with its parameters' values by their flat names."""

    model: dict[str, Scalar]
    training: dict[str, Scalar]
    """Empty of a probe."""
    inference: dict[str, Scalar]
    """Of several shapes the first."""


class Configuration(Sections):
    """A trial's configuration as it is stored, hashed and sent."""

    task: str
    shapes: NotRequired[list[ShapeDocument]]
    """Only if there are several: all of them, the first included."""


@dataclass(frozen=True, slots=True)
class TrialConfiguration:
    """A trial's configuration as it was understood."""

    task: str
    model: Mapping[str, Scalar]
    """A completed model: the values of its parameters by their paths."""
    training: TrainingConfig | None
    """None: a probe has none."""
    inference: InferenceConfig
    """Of several shapes the first."""
    shapes: tuple[NamedShape, ...]
    """Empty if the sweep names none."""
    document: Configuration = field(repr=False)
    """The configuration as it was given, to be passed on."""

    @classmethod
    def of(cls, document: Configuration) -> TrialConfiguration:
        training = document["training"]
        return cls(
            task=document["task"],
            model=document["model"],
            training=TrainingConfig.of(training) if training else None,
            inference=InferenceConfig.of(document["inference"]),
            shapes=shapes_of(document.get("shapes", [])),
            document=document,
        )

    def at(self, shape: NamedShape) -> TrialConfiguration:
        """The same model at one of the shapes."""
        document: Configuration = {**self.document, "inference": shape.section(self.document["inference"])}
        return TrialConfiguration.of(document)


def flatten(sections: Sections) -> dict[str, Scalar]:
    """The values of a trial's configuration by the names that expressions and constraints use."""
    values = dict(sections["model"])
    values.update({f"training.{name}": value for name, value in sections["training"].items()})
    values.update({f"inference.{name}": value for name, value in sections["inference"].items()})
    return values
