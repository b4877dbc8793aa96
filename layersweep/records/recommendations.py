"""The shapes of what the service answers of a recommendation, its evidence and its confirmations.

Differences are other - recommended. Losses are in nats, intervals at 95 %.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from layersweep.records.catalog import Implication
from layersweep.records.sweeps import Configuration, LeaderboardRow, Objective, Progress, Scalar, SweepState, TrialState


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


class LimitStep(TypedDict):
    """What another limit of a constraint would mean."""

    limit: float | None
    trial: LeaderboardRow | None
    trades: list[Trade]
    says: str


class ConstraintSlack(TypedDict):
    constraint: str
    metric: str | None
    value: float | None
    limit: float | None
    slack: float
    slack_share: float | None
    tighter: LimitStep
    looser: LimitStep


class SmallerTrial(TypedDict):
    """Why a smaller trial is recommended in place of the one that the rule chose."""

    instead_of: LeaderboardRow
    parameters_saved: int
    loss_difference_nats: float
    standard_error_nats: float
    says: str


class Certainty(TypedDict):
    latency_half_width_share: float | None
    latency_rebuilt_share: float | None
    validation_standard_error_nats: float | None
    seeds: int
    seed_spread_nats: float | None
    repeats_of_choice: int
    chosen_again_share: float | None
    says: list[str]


class DataEvidence(TypedDict):
    dataset: str | None
    parameters_low: float | None
    parameters_high: float | None
    implications: list[Implication]


class ComplexityPoint(TypedDict):
    trial: str
    number: int
    parameter_count: float
    generalization_gap: float
    validation_loss: float
    objectives: dict[str, float]
    on_front: bool
    feasible: bool


class Complexity(TypedDict):
    """Size against overfitting."""

    parameter_count: float | None
    training_tokens: int | None
    tokens_seen: int | None
    epochs: float | None
    tokens_per_parameter: float | None
    generalization_gap: float | None
    points: list[ComplexityPoint]
    smaller: SmallerTrial | None
    says: list[str]


class ParameterDifference(TypedDict):
    parameter: str
    recommended: Scalar | None
    preset: Scalar | None


class StartResult(TypedDict):
    """How a start of the sweep did."""

    start: str
    title: str | None
    trial: LeaderboardRow
    trades: list[Trade]
    says: str


class NearestPreset(TypedDict):
    preset: str
    title: str
    source: str
    url: str
    same: int
    differences: list[ParameterDifference]


class Literature(TypedDict):
    starts: list[StartResult]
    nearest: NearestPreset | None
    says: list[str]


class TargetFit(TypedDict):
    target: str
    fits: bool
    lacks: str | None
    basis: str


class Compatibility(TypedDict):
    targets: list[TargetFit]
    says: list[str]


class Evidence(TypedDict):
    data: DataEvidence
    constraints: list[ConstraintSlack]
    complexity: Complexity
    literature: Literature
    compatibility: Compatibility


class Interval(TypedDict):
    low: float
    high: float


class Estimate(TypedDict):
    """A mean over seeds."""

    mean: float
    spread: float | None
    sampling_error: float | None
    expected: Interval | None
    one_more: Interval | None


class ConfirmationRun(TypedDict):
    """One further training."""

    trial: str
    seed: int
    state: TrialState
    reason: str | None
    validation_loss: float | None
    test_loss: float | None
    latency_ms_p50: float | None


class ConfirmedTrial(TypedDict):
    trial: LeaderboardRow
    recommended: bool
    runs: list[ConfirmationRun]
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


class LossSlope(TypedDict):
    """How fast a trial's loss still fell at the end of its training; `nats_per_doubling` is of the steps."""

    metric: str
    from_step: int
    to_step: int
    nats_per_doubling: float
    standard_error: float
    steps_to_baseline: int | None


class BaselineComparison(TypedDict):
    """The recommended trial against the best model that only counts; `says` is empty if nothing is to be said."""

    model: str
    loss_nats: float
    beaten: bool
    instead_of: LeaderboardRow | None
    slope: LossSlope | None
    says: list[str]


class Recommendation(TypedDict):
    """Which trial to take, by which rule, and what speaks for it. An older service does not say `under_limits`."""

    sweep: str
    rule: str
    trial: LeaderboardRow
    configuration: Configuration
    final: bool
    baseline: BaselineComparison | None
    under_limits: NotRequired[Neighbour | None]
    objectives: list[Objective]
    summary_metrics: NotRequired[list[str]]
    prefer: list[str]
    within: list[str]
    weights: dict[str, float]
    smaller: SmallerTrial | None
    neighbours: list[Neighbour]
    certainty: Certainty
    evidence: Evidence
    confirmation: Confirmation | None
