"""The sections of a sweep document: parameters by their names, nested as the document nests them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

from layers.parameter import Scalar

SectionName = Literal["model", "training", "inference"]
SECTIONS: tuple[SectionName, ...] = ("model", "training", "inference")

Written: TypeAlias = "Scalar | list[Scalar] | dict[str, Written] | None"
"""What stands at a name: a value, how it varies ({values}, {min, max}, {derived}, {when}), or the names below it."""

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
