"""The shapes of what the service answers of sweeps, as typed dictionaries: `--json` prints and the client returns them.

Units are in the names; times are RFC 3339 strings in UTC. A newer service may send more keys than are named here.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

SweepState = Literal["active", "paused", "completed", "cancelled", "failed"]
TrialState = Literal["queued", "running", "complete", "infeasible", "pruned", "failed", "cancelled"]
Scalar = bool | int | float | str

ENDED_SWEEP_STATES: frozenset[str] = frozenset({"completed", "cancelled", "failed"})
TRIAL_STATES: tuple[TrialState, ...] = ("queued", "running", "complete", "infeasible", "pruned", "failed", "cancelled")
ENDED_TRIAL_STATES: tuple[TrialState, ...] = TRIAL_STATES[2:]


class Objective(TypedDict):
    metric: str
    goal: Literal["minimize", "maximize"]


class Budget(TypedDict):
    trials: int
    parallel: int
    failures: int
    wall_seconds: float | None


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
    """Trials by state. `rejected` points broke a rule and became no trial; `reused` ones were measured before."""

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


class SweepDetailRecord(SweepRecord):
    document: dict[str, Any]


class ProblemNote(TypedDict):
    """A remark on a place of a document, and what would be better."""

    pointer: str
    detail: str
    remedy: str


class CostEstimate(TypedDict):
    """What a sweep will cost if its trials cost what earlier ones did."""

    trial_seconds: float
    device_seconds: float
    wall_seconds: float
    from_trials: int
    target: str
    median_error_share: float


class SweepPreview(TypedDict):
    """What a valid document would become; nothing is stored."""

    valid: Literal[True]
    document: dict[str, Any]
    space: SpaceFacts
    sampler: str
    sampler_reason: str
    notes: list[ProblemNote]
    estimate: CostEstimate | None


class EventRecord(TypedDict):
    sequence: int
    kind: str
    trial: str | None
    data: dict[str, Any]
    created_at: str


class TrialRecord(TypedDict):
    id: str
    sweep: str
    number: int
    state: TrialState
    phase: str | None
    progress: dict[str, Any] | None
    attempt: int
    worker: str | None
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    feasible: bool | None
    violations: dict[str, float] | None
    rank: int | None
    on_front: bool
    reason: str | None
    reused_from: str | None
    started_from: str | None
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


class TrialDetailRecord(TrialRecord):
    configuration: dict[str, Any]
    attempts: list[AttemptRecord]
    curve: list[CurvePoint]
    measurements: dict[str, dict[str, Any]]


class LeaderboardRow(TypedDict):
    trial: str
    number: int
    state: TrialState
    rank: int | None
    on_front: bool
    feasible: bool | None
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    reason: str | None
    reused_from: str | None
    started_from: str | None


class Trade(TypedDict):
    """What another trial has of one metric; `difference` is other - recommended."""

    metric: str
    goal: str
    value: float
    difference: float
    share: float | None


class Neighbour(TypedDict):
    trial: LeaderboardRow
    better_in: str
    trades: list[Trade]
    says: str


class Recommendation(TypedDict):
    """The whole answer is described in the service's /docs; these fields are what most callers read."""

    sweep: str
    rule: str
    trial: LeaderboardRow
    configuration: dict[str, Any]
    final: bool
    objectives: list[Objective]
    prefer: list[str]
    within: list[str]
    weights: dict[str, float]
    smaller: dict[str, Any] | None
    neighbours: list[Neighbour]
    certainty: dict[str, Any]
    evidence: dict[str, Any]
    confirmation: Confirmation | None


class Estimate(TypedDict):
    """A mean over seeds in nats. Intervals are {"low", "high"} at 95 %."""

    mean: float
    spread: float | None
    sampling_error: float | None
    expected: dict[str, float] | None
    one_more: dict[str, float] | None


class ConfirmedTrial(TypedDict):
    trial: LeaderboardRow
    recommended: bool
    runs: list[dict[str, Any]]
    validation: Estimate | None
    test: Estimate | None
    optimism_nats: float | None
    test_gap_nats: float | None
    kept_constraints: bool | None
    says: list[str]


class Confirmation(TypedDict):
    """`id` is also a sweep's: wait for it, pause and cancel it as one."""

    id: str
    sweep: str
    state: SweepState
    reason: str | None
    seeds: list[int]
    progress: Progress
    candidates: list[ConfirmedTrial]
    best: int | None
    optimism_nats: float | None
    seed_spread_nats: float | None
    says: list[str]
    method: str
    created_at: str
    ended_at: str | None


class ArtifactRecord(TypedDict):
    name: str
    size_bytes: int
    sha256: str
    created_at: str
