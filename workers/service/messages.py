"""What a worker and the service say to each other, as JSON has it."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from layers.capabilities import Capabilities
from layers.configuration import Configuration
from layers.dataset_facts import DatasetFacts
from workers.devices.device import Device
from workers.engine.protocol import JsonObject


class RegistrationRequest(TypedDict):
    """A worker and what it can do."""

    name: str
    device: Device
    targets: list[Capabilities]
    versions: dict[str, str]
    slots: NotRequired[int]
    """How many attempts it executes at once; left out: one."""
    labels: NotRequired[dict[str, str]]
    """What sweeps may ask for."""


class RegistrationAnswer(TypedDict):
    """A worker's id, the lease's and the heartbeat's seconds, and the names of its targets."""

    id: str
    lease_seconds: float
    heartbeat_seconds: float
    target_keys: list[str]


class SplitAnswer(TypedDict):
    """A split of a leased trial's dataset."""

    sha256: str
    tokens: NotRequired[int | None]
    """Of a text."""
    bytes: NotRequired[int | None]
    """Of a text, if they were counted."""


class DatasetAnswer(TypedDict):
    """The dataset of a leased trial."""

    id: str
    name: str
    task: str
    sha256: str
    facts: DatasetFacts
    parts: dict[str, SplitAnswer]


class TrainingStateAnswer(TypedDict):
    """The state of a training that was stopped, from which this one goes on."""

    sha256: str


class LeaseAnswer(TypedDict):
    """A trial that a worker may execute."""

    trial: str
    attempt: int
    sweep: str
    number: int
    runtime: str
    target_key: str
    configuration: Configuration
    dataset: DatasetAnswer | None
    constraints: list[str]
    hardware_first: NotRequired[bool]
    measure: NotRequired[bool]
    metrics_in_use: NotRequired[list[str]]
    rungs: NotRequired[list[int]]
    training_state: NotRequired[TrainingStateAnswer | None]
    lease_seconds: float


class LeasesAnswer(TypedDict):
    """Trials that a worker of several slots may execute."""

    leases: list[LeaseAnswer]


class FigureNoise(TypedDict):
    """What is known of a metric that was timed."""

    low: float
    high: float
    """Bounds of its 95 % confidence interval, in the metric's unit."""
    processes: int
    """In how many it was measured."""
    spread: float | None
    """Standard deviation between them, relative to the metric; None of one process."""
    known: bool
    """It is known well enough to be judged by its figure, though a limit lies in the interval."""


class Report(TypedDict, total=False):
    """How far an attempt is. Empty: it is still there."""

    phase: str
    progress: JsonObject
    losses: list[JsonObject]
    metrics: dict[str, float]
    noise: dict[str, FigureNoise]
    log: str


class ReportAnswer(TypedDict, total=False):
    """What is to become of an attempt."""

    action: str
    reason: str | None
    lease_seconds: float
    keep_training_state: bool
    """Of one that is to be pruned: whether the service keeps the state of its training."""


class FinishRequest(TypedDict):
    """How an attempt ended, and what was learnt of it."""

    outcome: str
    reason: str | None
    metrics: NotRequired[dict[str, float]]
    measurements: NotRequired[dict[str, JsonObject]]
    noise: NotRequired[dict[str, FigureNoise]]
    """Metric -> how certain it is."""
    log: NotRequired[str]
    claim: NotRequired[bool]
    """Whether the worker has room for another attempt now."""


class FinishAnswer(TypedDict, total=False):
    """The next lease, if the finish asked for one."""

    lease: LeaseAnswer | None


class QueueEntry(TypedDict):
    """Trials that need the same of a worker, as far as a fleet asks about them."""

    project: str
    target: str | None
    """None: no worker was found yet."""
    runtime: str | None
    """None: any."""
    results_version: int
    labels: dict[str, str]
    wanted_slots: int
    workers: int
    """Living ones that may take them."""
    slots: int
    waits_for: str | None


class TargetKey(TypedDict):
    """A target of a worker that has registered."""

    key: str


class RegisteredDevice(TypedDict):
    kind: str


class RegisteredWorker(TypedDict):
    """A worker as the service lists it, as far as a fleet asks about it."""

    name: str
    device: RegisteredDevice
    targets: list[TargetKey]
    slots: int
