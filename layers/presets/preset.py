"""What a preset is: a published configuration with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from layers.declarations.kinds import KINDS
from layers.parameter import Scalar
from layers.sections import DocumentSections, document_sections


class PresetDocument(DocumentSections):
    """The parts of a sweep document that a preset sets."""

    task: str


@dataclass(frozen=True, slots=True)
class Preset:
    """One published configuration. What it does not name has the declarations' defaults."""

    name: str
    title: str
    source: str
    url: str
    values: Mapping[str, Scalar]

    @property
    def task(self) -> str:
        """The task that its kind of model is for."""
        return KINDS[str(self.values["kind"])].task

    def document(self) -> PresetDocument:
        """The parts of a sweep document that it sets."""
        return {"task": self.task, **document_sections(self.values)}


def of_layers(layers: Iterable[int], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The same values of single layers."""
    return {f"layers.{layer}.{path}": value for layer in layers for path, value in values.items()}
