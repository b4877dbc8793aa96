"""The shapes of what can be swept, and on what, as in `records`: datasets, layers, presets, targets, workers."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict, final

from layersweep.json_values import JsonObject
from layersweep.records.sweeps import Scalar


class Part(TypedDict):
    tokens: int | None
    examples: int | None
    bytes: NotRequired[int | None]
    """Of a text."""
    sha256: str


class DatasetFacts(TypedDict, total=False):
    """What a model has to know of its data; which of it there is depends on the task."""

    tokenizer: str
    target_tokenizer: str
    tokenizer_sha256: str
    vocabulary_size: int
    vocabulary: list[str]
    classes: int
    labels: list[str]
    sequence_length: int
    attention_mask: bool
    pad_id: int
    start_id: int
    end_id: int
    source_vocabulary_size: int
    source_symbols: list[str]
    target_symbols: list[str]
    source_length: int
    target_length: int


class Implication(TypedDict):
    """What a dataset's profile means for a model of it: a range, a warning or a note."""

    kind: str
    says: str
    source: str | None


class DatasetRecord(TypedDict):
    id: str
    name: str
    project: str
    task: str
    tokenizer: str | None
    builtin: bool
    sha256: str
    size_bytes: int
    facts: DatasetFacts
    parts: dict[str, Part]
    created_at: str


class DatasetDetailRecord(DatasetRecord):
    """`profile`: sizes, repetition and baselines, by names that depend on the task."""

    profile: JsonObject
    implications: list[Implication]


class ParameterSupport(TypedDict):
    supported: bool
    note: str
    values: dict[str, str]


@final
class ListedValues(TypedDict):
    values: list[Scalar | None]


@final
class Range(TypedDict):
    min: float
    max: float
    step: NotRequired[float]
    log: NotRequired[bool]


Opening: TypeAlias = ListedValues | Range
"""What is tried of a parameter."""


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
    search: Opening | None
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
    document: JsonObject


class Device(TypedDict):
    kind: Literal["cpu", "gpu"]
    uuid: str
    model: str
    memory_bytes: int


class Capabilities(TypedDict):
    """What one target on one device supports."""

    runtime: str
    version: str
    device_model: str
    opset: int
    dtypes: list[str]
    quantizations: list[str]
    devices: int
    link: NotRequired[str | None]
    device_memory_bytes: int
    compute_capability: str | None
    build_only: bool
    build_options: list[str]
    lacks: dict[str, str]


class RegisteredCapabilities(Capabilities):
    """`results_version`: of the worker; its measurements are comparable with those of the same version."""

    results_version: NotRequired[int]


class WorkerTarget(RegisteredCapabilities):
    key: str


class Target(TypedDict):
    key: str
    runtime: str
    version: str
    device_model: str
    capabilities: RegisteredCapabilities
    workers: list[str]


class Execution(TypedDict):
    """What one busy slot of a worker does: `phase` since `since`, and what it waits for, as a code and in words."""

    trial: str
    sweep: str
    sweep_name: str
    number: int
    attempt: int
    phase: str | None
    since: str
    wait_cause: str | None
    waiting_for: str | None


class DeviceUse(TypedDict):
    """How busy a worker's device was, by NVML (`nvml`) or by the time in which its `attempts` were at work."""

    busy_share: float
    over_seconds: float
    source: str


class WorkerRecord(TypedDict):
    """An older service says neither `slots` nor `trials`: its workers have one slot. Nor does it know labels, what
    the slots do, how many are busy, and how busy the device was. The shares are null of a worker that is not alive."""

    id: str
    project: str | None
    name: str
    device: Device
    targets: list[WorkerTarget]
    versions: dict[str, str]
    slots: NotRequired[int]
    labels: NotRequired[dict[str, str]]
    alive: bool
    trial: str | None
    busy_slots: NotRequired[int]
    """With those that execute trials of other projects, which nothing else of it says."""
    trials: NotRequired[list[str]]
    executions: NotRequired[list[Execution]]
    device_use: NotRequired[DeviceUse | None]
    device_busy_share: NotRequired[float | None]
    slots_busy_share: NotRequired[float | None]
    registered_at: str
    last_seen_at: str


class QueueEntry(TypedDict):
    """Trials of active sweeps of one project and priority that need the same of a worker; `cause` is null if
    nothing waits, or it is being taken."""

    project: str
    priority: int
    target: str | None
    runtime: str | None
    version: str | None
    device_model: str | None
    compute_capability: str | None
    devices: int | None
    device_memory_bytes: int | None
    results_version: int
    labels: dict[str, str]
    sweeps: int
    queued: int
    running: int
    oldest_seconds: float | None
    workers: int
    slots: int
    busy_slots: int
    cause: str | None
    waits_for: str | None


class CheckpointRecord(TypedDict):
    """An uploaded checkpoint that a sweep can begin with."""

    id: str
    name: str
    project: str
    architecture: str
    task: str
    sha256: str
    size_bytes: int
    parameter_count: int
    has_tokenizer: bool
    created_at: str


class CheckpointDetailRecord(CheckpointRecord):
    config: JsonObject
    model: dict[str, Scalar]
