"""The shapes of what the service answers of sweeps, as typed dictionaries: `--json` prints and the client returns them.

Units are in the names; times are RFC 3339 strings in UTC. A newer service may send more keys than are named here.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from layersweep.json_values import JsonObject
from layersweep.records.noise import SweepNoise, TrialNoise
from layersweep.records.predictions import PredictedHardware, SparedBuilds

SweepState = Literal["active", "paused", "completed", "cancelled", "failed"]
SweepOrder = Literal["created_at", "-created_at", "name", "-name"]
TrialState = Literal["queued", "running", "complete", "infeasible", "pruned", "failed", "cancelled"]
Scalar = bool | int | float | str

SWEEP_STATES: tuple[SweepState, ...] = ("active", "paused", "completed", "cancelled", "failed")
ENDED_SWEEP_STATES: frozenset[str] = frozenset({"completed", "cancelled", "failed"})
TRIAL_STATES: tuple[TrialState, ...] = ("queued", "running", "complete", "infeasible", "pruned", "failed", "cancelled")
ENDED_TRIAL_STATES: tuple[TrialState, ...] = TRIAL_STATES[2:]


class Objective(TypedDict):
    metric: str
    goal: Literal["minimize", "maximize"]


class Budget(TypedDict):
    trials: int
    parallel: int | Literal["auto"]
    failures: int
    wall_seconds: float | None
    device_seconds: NotRequired[float | None]


class SpaceFacts(TypedDict):
    """What validation found out about the space."""

    points: int | None
    feasible_share: float
    sampled: bool
    judged: NotRequired[int | None]
    feasible_interval: NotRequired[tuple[float, float] | None]
    open_parameters: list[str]
    rejections: dict[str, float]


class Progress(TypedDict):
    """Trials by state. `rejected` points broke a rule and became no trial; `reused` ones were measured before;
    `replicates` train a trial again."""

    trials: int
    budget: int
    queued: int
    running: int
    complete: int
    infeasible: int
    pruned: int
    failed: int
    cancelled: int
    reused: int
    rejected: int
    replicates: NotRequired[int]


class BestTrial(TypedDict):
    trial: str
    number: int
    value: float


class SweepRecord(TypedDict):
    id: str
    name: str
    project: str
    task: str
    dataset: str | None
    state: SweepState
    reason: str | None
    end_code: NotRequired[str | None]
    objectives: list[Objective]
    constraints: list[str]
    budget: Budget
    effective_parallel: NotRequired[int]
    note: NotRequired[str]
    tags: NotRequired[list[str]]
    archived: NotRequired[bool]
    priority: NotRequired[int]
    device_seconds: NotRequired[float]
    sampler: str
    sampler_reason: str
    space: SpaceFacts
    target: str | None
    progress: Progress
    best: dict[str, BestTrial]
    version: int
    created_at: str
    started_at: str | None
    ended_at: str | None


class SearchSettings(TypedDict):
    """How the points of a sweep are chosen."""

    sampler: str
    seed: int
    reuse: bool
    hardware_first: NotRequired[str]
    pruner: NotRequired[str]


class TargetChoice(TypedDict):
    runtime: str


class SweepDocument(TypedDict):
    """A sweep document as it was understood: with every default, in full names.

    A section holds a value, or what is tried of it ({"values": [...]}, {"min": 1, "max": 6}), by nested names.
    """

    name: str
    task: str
    dataset: NotRequired[str]
    variables: NotRequired[JsonObject]
    model: JsonObject
    training: JsonObject
    inference: JsonObject
    objectives: list[Objective]
    constraints: list[str]
    rules: list[str]
    budget: Budget
    search: SearchSettings
    start_from: list[str | JsonObject]
    require: NotRequired[str]
    target: NotRequired[TargetChoice]
    allow_sparse: bool


class PruningRecord(TypedDict):
    """How trainings of a sweep are stopped before their end, and what came of it."""

    pruner: str
    reason: str
    judged: int
    pruned: int
    saved_share: float | None
    expected_front_loss: float | None
    spared: int
    spared_on_front: int


class TransferRecord(TypedDict):
    """The earlier sweeps that a sweep with `search.transfer` starts from, and how many of their trials."""

    sweeps: list[str]
    trials: int


class SweepWait(TypedDict):
    """Why no worker takes the trials of a sweep; `cause` as in the queue."""

    cause: str
    reason: str


class ProblemNote(TypedDict):
    """A remark on a place of a document, and what would be better."""

    pointer: str
    detail: str
    remedy: str


class SweepDetailRecord(SweepRecord):
    document: SweepDocument
    transfer: NotRequired[TransferRecord]
    notes: NotRequired[list[ProblemNote]]
    """Of the answer to the request that made it."""
    pruning: NotRequired[PruningRecord]
    spared_builds: NotRequired[SparedBuilds]
    waiting: NotRequired[SweepWait | None]
    noise: NotRequired[SweepNoise]


class CostEstimate(TypedDict):
    """What a sweep will cost if its trials cost what earlier ones did."""

    trial_seconds: float
    device_seconds: float
    wall_seconds: float
    trials: NotRequired[int]
    parallel: NotRequired[int]
    from_trials: int
    from_points: int
    target: str
    median_error_share: float


class PredictedLimit(TypedDict):
    constraint: str
    kept_share: float


class HardwarePrediction(TypedDict):
    """What a space's points are predicted to take of a device."""

    metric: str
    target: str
    from_trials: int
    error_share: float
    covered_share: float
    points: int
    known_points: int
    low: float
    median: float
    high: float
    limits: list[PredictedLimit]


class TransformersShare(TypedDict):
    """How many of `judged` random points that keep the rules are of which architecture of `transformers`."""

    judged: int
    architectures: dict[str, int]
    misfit: str | None


class UnpredictedMetric(TypedDict):
    metric: str
    reason: str


class SweepPreview(TypedDict):
    """What a valid document would become; nothing is stored."""

    valid: Literal[True]
    document: SweepDocument
    space: SpaceFacts
    sampler: str
    sampler_reason: str
    pruner: str
    pruner_reason: str
    notes: list[ProblemNote]
    transformers: NotRequired[TransformersShare | None]
    estimate: CostEstimate | None
    predictions: NotRequired[list[HardwarePrediction]]
    unpredicted: NotRequired[list[UnpredictedMetric]]


class EventRecord(TypedDict):
    sequence: int
    kind: str
    trial: str | None
    data: JsonObject
    created_at: str


class TrialProgress(TypedDict, total=False):
    """Where a phase is, in what it counts."""

    step: int
    steps: int
    fraction: float
    waiting_for: str


class TrialRecord(TypedDict):
    id: str
    sweep: str
    number: int
    state: TrialState
    phase: str | None
    progress: TrialProgress | None
    attempt: int
    worker: str | None
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    feasible: bool | None
    violations: dict[str, float] | None
    noise: NotRequired[TrialNoise | None]
    rank: int | None
    on_front: bool
    reason: str | None
    reused_from: str | None
    started_from: str | None
    promoted: NotRequired[bool]
    """It was pruned, and somebody wants it trained to its end. Absent of an older service."""
    created_at: str
    started_at: str | None
    ended_at: str | None


class PhaseTime(TypedDict):
    phase: str
    started_at: str
    seconds: float


class AttemptRecord(TypedDict):
    attempt: int
    worker: str
    started_at: str
    ended_at: str | None
    outcome: str | None
    reason: str | None
    phases: list[PhaseTime]
    log: str


class CurvePoint(TypedDict):
    step: int
    training_loss: float | None
    validation_loss: float | None
    learning_rate: float | None
    tokens: int | None
    seconds: float | None


class Configuration(TypedDict):
    """All parameters of a trial, by section; names are in full: `attention.head_dim`."""

    task: str
    model: dict[str, Scalar | None]
    training: dict[str, Scalar | None]
    inference: dict[str, Scalar | None]
    """Of several shapes the first."""
    shapes: NotRequired[list[dict[str, Scalar]]]
    """Each with its `name`; absent if the sweep names none."""


class TrainingRecord(TypedDict):
    trial: str
    seed: int
    state: TrialState
    validation_loss: float | None


class TrialDetailRecord(TrialRecord):
    """`measurements`: what was measured beside the metrics, by its name: samples, environment, parity. `trainings`: of
    a trial that was trained again with further seeds."""

    replicate_of: NotRequired[str | None]
    trainings: NotRequired[list[TrainingRecord]]
    predicted: NotRequired[PredictedHardware]
    configuration: Configuration
    attempts: list[AttemptRecord]
    curve: list[CurvePoint]
    measurements: dict[str, JsonObject]


class LeaderboardRow(TypedDict):
    trial: str
    number: int
    state: TrialState
    rank: int | None
    on_front: bool
    tied: NotRequired[bool | None]
    feasible: bool | None
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    noise: NotRequired[TrialNoise | None]
    reason: str | None
    reused_from: str | None
    started_from: str | None


class ArtifactRecord(TypedDict):
    name: str
    size_bytes: int
    sha256: str
    created_at: str


class BrokenConstraint(TypedDict):
    """A constraint that trials broke; trial `nearest` missed it by least, `by` in its unit.

    `undecided` trials cannot be judged by it: the limit lies within their noise.
    """

    constraint: str
    broken: int
    judged: int
    undecided: int
    nearest: int
    by: float
    says: str


class LoosenedConstraint(TypedDict):
    """A constraint with another limit; `limit` is None if it is no limit on one metric."""

    constraint: str
    by: float
    limit: float | None
    allow: str


class LoosenedLimits(TypedDict):
    """Limits under which `feasible` trials would keep all constraints, as far as these were judged of them."""

    feasible: int
    limits: list[LoosenedConstraint]
    trials: list[int]
    unknown: list[str]
    says: str


class ConstraintSummary(TypedDict):
    """How a sweep's trials did by its constraints."""

    sweep: str
    judged: int
    not_judged: int
    feasible: int
    constraints: list[BrokenConstraint]
    loosened: list[LoosenedLimits]
    says: list[str]
