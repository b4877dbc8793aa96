"""What the JSON columns hold. It stands here because the tables import none of the domains that write it.

What a sweep document, a configuration and a target say is defined in `layers`. A row may be older than this version: a
member that was added since is `NotRequired`, and an open column (`JsonObject`) is what a worker or a caller said.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypeAlias, TypedDict

from layers.capabilities import Target
from layers.parameter import Scalar
from layers.space.document_fields import Budget
from layersweep.json_values import JsonObject
from service.common.states import SweepState, TrialState

# --- workers ----------------------------------------------------------------------------------------------------------


class DeviceFacts(TypedDict):
    """The device of a worker, as it registered it."""

    kind: str
    """cpu or gpu."""
    uuid: str
    model: str
    memory_bytes: int


class DeviceUse(TypedDict):
    """How busy a worker's device was, as the worker says it."""

    busy_share: float
    over_seconds: float
    """Of the time until it was said."""
    source: str
    """nvml: the driver counted the time in which a kernel ran. attempts: the worker, that in which one was at work."""


class ReportedDeviceUse(DeviceUse):
    """The same with the time at which it was said."""

    at: float


class RegisteredTarget(Target):
    """A target's capabilities as a worker registered them, with the version of its results."""

    results_version: NotRequired[int]


# --- sweeps -----------------------------------------------------------------------------------------------------------


class StoredStart(TypedDict):
    """A point that is tried first, by value: the trial that it names may be deleted."""

    name: str
    chosen: dict[str, Scalar]


class SpaceFacts(TypedDict):
    """What validation found of a sweep's space."""

    points: int | None
    feasible_share: float
    sampled: bool
    judged: NotRequired[int | None]
    feasible_interval: NotRequired[list[float]]
    open_parameters: list[str]
    rejections: NotRequired[dict[str, float]]
    """Rule -> share of points that it rejects first."""
    starts: NotRequired[list[StoredStart]]


class TransferFacts(TypedDict):
    """What a sweep starts from."""

    trials: int
    sweeps: list[str]
    """The earlier sweeps that the trials are of, the newest first."""


# --- attempts ---------------------------------------------------------------------------------------------------------


class PhaseTime(TypedDict):
    """A phase of an attempt; `seconds` is 0 while it runs."""

    phase: str
    started_at: float
    seconds: float


class PredictedFigure(TypedDict):
    """A metric as a model of the device predicts it: above `low` with a certainty of 99 %, and so below `high`."""

    median: float
    low: float
    high: float


class PredictedHardware(TypedDict):
    """What stands in for a build before the training: of each metric that would be asked for, and why it may."""

    figures: dict[str, PredictedFigure]
    reason: str


class Losses(TypedDict, total=False):
    """A point of an attempt's curve, as far as it was measured. Losses in nats."""

    training_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    tokens: int


# --- what a sampler was asked and told --------------------------------------------------------------------------------


class Told(TypedDict):
    """A result as a sampler was told it."""

    state: TrialState | str
    values: list[float] | None
    """In the order of the objectives."""
    constraints: ToldConstraints
    spread: NotRequired[float]
    """Standard deviation of the value that a pruned trial was expected to have; absent of what was measured."""


class ToldConstraints(TypedDict, total=False):
    violation: float
    """Absent of a failed trial."""


class Distribution(TypedDict):
    """A distribution in Optuna's own JSON."""

    name: str
    attributes: JsonObject


class AttributeValue(TypedDict):
    """A value that a sampler keeps on its study: whatever JSON it is."""

    value: Any


# --- events -----------------------------------------------------------------------------------------------------------


class SweepCreated(TypedDict):
    """Of `sweep.created`."""

    name: str
    confirms: NotRequired[str]
    """Of a confirmation: the sweep whose trials are trained again."""


class SweepChanged(TypedDict):
    """Of `sweep.state`."""

    state: SweepState
    reason: str | None


class SweepTargeted(TypedDict):
    """Of `sweep.target`."""

    target: str | None
    waits_for: str | None


class SweepExtended(TypedDict):
    """Of `sweep.extended`."""

    budget: Budget


class SweepPrioritized(TypedDict):
    """Of `sweep.priority`."""

    priority: int
    before: int


class SweepAnnotated(TypedDict):
    """Of `sweep.annotated`: what it is called and marked with now."""

    name: str
    note: str
    tags: list[str]
    archived: bool


class SlotsShared(TypedDict):
    """Of `sweep.parallel_changed`: how many trials may run at once."""

    parallel: int
    before: int


class SweepTroubled(TypedDict):
    """Of `sweep.trouble`: why an active sweep does not go on; None: it does again."""

    reason: str | None
    code: str | None


class SweepConfirmed(TypedDict):
    """Of `sweep.confirmation`."""

    confirmation: str
    state: SweepState


class TrialQueued(TypedDict):
    """Of `trial.queued`; what an attempt that was given back says of itself is absent of the others."""

    number: int
    predicted: NotRequired[PredictedHardware]
    """As `Trial.predicted`."""
    attempt: NotRequired[int]
    reason: NotRequired[str]
    charged: NotRequired[bool]


class ReplicateQueued(TypedDict):
    """Of `trial.queued`, of a further training."""

    number: int
    replicate_of: str


class TrialReplicated(TypedDict):
    """Of `trial.replicated`."""

    number: int
    trainings: int
    validation_loss: float


class TrialPromoted(TypedDict):
    """Of `trial.promoted`."""

    number: int


class TrialRunning(TypedDict):
    """Of `trial.running`."""

    number: int
    attempt: int
    worker: str


class TrialPhase(TypedDict):
    """Of `trial.phase`."""

    number: int
    attempt: int
    phase: str


class ReportedLosses(Losses):
    step: int


class LastLosses(TypedDict, total=False):
    losses: ReportedLosses
    """The last of those that were reported; absent if none were."""


class TrialReport(LastLosses):
    """Of `trial.report`."""

    number: int
    attempt: int
    phase: str | None
    progress: JsonObject | None


class TrialEnded(TypedDict):
    """Of `trial.ended`."""

    number: int
    state: TrialState
    feasible: bool | None
    reused: bool


EventData: TypeAlias = (
    SweepCreated
    | SweepChanged
    | SweepTargeted
    | SweepExtended
    | SweepPrioritized
    | SweepAnnotated
    | SlotsShared
    | SweepTroubled
    | SweepConfirmed
    | TrialQueued
    | ReplicateQueued
    | TrialReplicated
    | TrialPromoted
    | TrialRunning
    | TrialPhase
    | TrialReport
    | TrialEnded
)
"""What an event says, by its kind."""


# --- webhooks ---------------------------------------------------------------------------------------------------------


class DeliveredSweep(TypedDict):
    """What a delivery says of a sweep."""

    sweep: str
    name: str
    project: str
    state: SweepState
    reason: str | None
    end_code: str | None
    sequence: int
    """Deliveries may come in another order than the changes: the largest is the newest."""
    counts: dict[str, int]
    confirms: str | None


class DeliveredPing(TypedDict):
    """What a delivery says that only tries a webhook out."""

    webhook: str
    project: str


class Delivery(TypedDict):
    """The body of a delivery."""

    type: str
    timestamp: str
    data: DeliveredSweep | DeliveredPing
