"""The sections of a sweep document: parameters by their names, nested as the document nests them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypedDict, cast

from layers.parameter import Scalar

SectionName = Literal["model", "training", "inference"]
SECTIONS: tuple[SectionName, ...] = ("model", "training", "inference")

Written: TypeAlias = "Scalar | list[Scalar] | list[dict[str, Scalar]] | dict[str, Written] | None"
"""What stands at a name: a value, how it varies ({values}, {min, max}, {derived}, {when}), shapes, or the names below
it."""

Section: TypeAlias = dict[str, Written]


def nested(flat: Mapping[str, Written]) -> Section:
    """Flat paths as a document nests them: {"mlp.kind": "MLP"} becomes {"mlp": {"kind": "MLP"}}."""
    section: Section = {}
    for path, written in flat.items():
        *parents, last = path.split(".")
        place = section
        for parent in parents:
            place = cast("Section", place.setdefault(parent, {}))
        place[last] = written
    return section


class DocumentSections(TypedDict, total=False):
    """The sections of a document; those without parameters are left out."""

    model: Section
    training: Section
    inference: Section


def document_sections(flat: Mapping[str, Scalar]) -> DocumentSections:
    """Values by the names that expressions use (bare below `model`, else with their section) as a document has them."""
    found: DocumentSections = {}
    for section in SECTIONS:
        prefix, others = ("", ("training.", "inference.")) if section == "model" else (f"{section}.", ())
        of_section = {
            path.removeprefix(prefix): value
            for path, value in flat.items()
            if path.startswith(prefix) and not path.startswith(others)
        }
        if of_section:
            found[section] = nested(of_section)
    return found
