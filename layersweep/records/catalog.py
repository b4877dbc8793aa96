"""The shapes of what can be swept, and on what, as in `records`: datasets, layers, presets, targets, workers."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from layersweep.records.sweeps import Scalar


class Part(TypedDict):
    tokens: int | None
    examples: int | None
    sha256: str


class DatasetRecord(TypedDict):
    id: str
    name: str
    project: str
    task: str
    tokenizer: str | None
    builtin: bool
    sha256: str
    size_bytes: int
    facts: dict[str, Any]
    parts: dict[str, Part]
    created_at: str


class DatasetDetailRecord(DatasetRecord):
    """`implications`: what the profile means for a model of it, each {"kind", "says", "source"}."""

    profile: dict[str, Any]
    implications: list[dict[str, Any]]


class ParameterSupport(TypedDict):
    supported: bool
    note: str
    values: dict[str, str]


class LayerParameter(TypedDict):
    path: str
    type: Literal["boolean", "integer", "number", "string"]
    default: Scalar | None
    required: bool
    minimum: float | None
    maximum: float | None
    choices: list[str]
    meaning: str
    source: str
    search: dict[str, Any] | None
    per_layer: bool
    targets: dict[str, ParameterSupport]


class LayerKind(TypedDict):
    section: str
    kinds: list[str]
    parameters: list[LayerParameter]


class Preset(TypedDict):
    name: str
    task: str
    title: str
    source: str
    url: str
    document: dict[str, Any]


class Target(TypedDict):
    key: str
    runtime: str
    version: str
    device_model: str
    capabilities: dict[str, Any]
    workers: list[str]


class WorkerRecord(TypedDict):
    id: str
    project: str | None
    name: str
    device: dict[str, Any]
    targets: list[dict[str, Any]]
    versions: dict[str, Any]
    alive: bool
    trial: str | None
    registered_at: str
    last_seen_at: str
