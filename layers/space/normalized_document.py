"""A sweep document with its defaults filled in and its names in full, as it is stored, shown and parsed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from layers.sections import Section
from layers.space.document_fields import Budget, Objective, SearchSettings
from layers.wanted_target import WantedTarget


class NamedDataset(TypedDict, total=False):
    """Empty of a probe."""

    dataset: str


class NamedVariables(TypedDict, total=False):
    """Empty if the document declares none."""

    variables: Section


class NamedTarget(TypedDict, total=False):
    """Empty if the document names none."""

    target: WantedTarget


class NamedRequirement(TypedDict, total=False):
    """Empty if nothing is required."""

    require: str


class NormalizedDocument(NamedDataset, NamedVariables, NamedTarget, NamedRequirement):
    """The document; `parse_document` reads it again to the same space."""

    name: str
    task: str
    model: Section
    training: Section
    inference: Section
    objectives: list[Objective]
    constraints: list[str]
    rules: list[str]
    budget: Budget
    search: SearchSettings
    start_from: list[str | Mapping[str, object]]
    """Names of presets and trials, and points by value."""
    allow_sparse: bool
