"""A recommendation with its evidence, as it crosses HTTP. Differences are other - recommended."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layers.configuration import Configuration
from service.common.schemas import AS_STORED, Scalar, Schema
from service.datasets.schemas import DataEvidence
from service.results.schemas import LeaderboardRow
from service.sweeps.schemas import Objective


class LossSlopeRecord(Schema):
    """How fast a trial's loss still fell at the end of its training: a line against the logarithm of the step."""

    metric: str = Field(description="validation_loss, or training_loss where few steps were validated")
    from_step: int
    to_step: int
    nats_per_doubling: float = Field(description="change of the loss each time the steps double; negative: it falls")
    standard_error: float = Field(description="of nats_per_doubling, by the scatter of its points")
    steps_to_baseline: int | None = Field(
        description="steps at which this rate reaches the baseline, an extrapolation; null where the loss does not "
        "clearly fall, or where that is more than eight times as many steps"
    )


class BaselineComparison(Schema):
    """The recommended trial against the best model that only counts (n-grams, shares of classes)."""

    model: str = Field(description="bigram, prior, ...")
    loss_nats: float = Field(description="its validation loss")
    beaten: bool = Field(description="whether the recommended trial's validation_loss is lower")
    instead_of: LeaderboardRow | None = Field(
        description="the trial that the rule alone would choose, passed over as it loses to the baseline"
    )
    slope: LossSlopeRecord | None = Field(description="of the recommended trial, where it does not beat the baseline")
    says: list[str] = Field(description="what to know before it is deployed; empty where there is nothing")


class Trade(Schema):
    """What another trial has of one metric, against the recommended one."""

    metric: str
    goal: str
    value: float
    difference: float
    share: float | None = Field(description="difference over the recommended trial's value; null where that is 0")


class Neighbour(Schema):
    """The next trial on the front that is better in one objective."""

    trial: LeaderboardRow
    better_in: str
    trades: list[Trade]
    says: str


class Recommendation(Schema):
    sweep: str
    rule: str = Field(description="how the trial was chosen, in words")
    trial: LeaderboardRow
    configuration: Annotated[Configuration, AS_STORED]
    final: bool = Field(description="false while the sweep is still going")
    baseline: BaselineComparison | None = Field(
        description="null where the dataset has no baseline, or the trial no validation loss"
    )
    under_limits: Neighbour | None = Field(
        default=None,
        description="the best trial in the one objective that no constraint limits, where the rule chose another; "
        "null with wishes",
    )


class LimitStep(Schema):
    """What another limit of a constraint would mean, read off the trials that there are."""

    limit: float | None = Field(description="the constrained value of that trial; null where the limit is no number")
    trial: LeaderboardRow | None
    trades: list[Trade]
    says: str


class ConstraintSlack(Schema):
    constraint: str
    metric: str | None = Field(description="null where it names several, or parameters")
    value: float | None
    limit: float | None
    slack: float = Field(description="how much is left, in the constraint's unit")
    slack_share: float | None = Field(description="slack over the limit")
    tighter: LimitStep
    looser: LimitStep


class SmallerTrial(Schema):
    """Why a smaller trial is recommended in place of the one that the rule chose."""

    instead_of: LeaderboardRow
    parameters_saved: int
    loss_difference_nats: float
    standard_error_nats: float
    says: str


class Certainty(Schema):
    """How sure the recommendation is."""

    latency_half_width_share: float | None = Field(
        description="the larger half of the 95 % interval of the median latency, relative to it; the trial's `noise` "
        "has both ends"
    )
    latency_rebuilt_share: float | None = Field(
        description="p50 of the trained engine over p50 of the first one, less 1: another build, another process; "
        "null where the trial was built once"
    )
    validation_standard_error_nats: float | None = Field(description="sampling error of the validation split")
    seeds: int = Field(description="trainings of this configuration that were scored")
    seed_spread_nats: float | None = Field(description="standard deviation over seeds; null until it is confirmed")
    repeats_of_choice: int
    chosen_again_share: float | None = Field(
        description="share of repeats, with noise added as it was measured, in which the rule chooses this trial again"
    )
    says: list[str]


class ComplexityPoint(Schema):
    trial: str
    number: int
    parameter_count: float
    generalization_gap: float
    validation_loss: float
    objectives: dict[str, float]
    on_front: bool
    feasible: bool


class Complexity(Schema):
    """Size against overfitting."""

    parameter_count: float | None
    training_tokens: int | None = Field(description="of the training split")
    tokens_seen: int | None = Field(description="steps x batch size x sequence length")
    epochs: float | None
    tokens_per_parameter: float | None = Field(description="of the training split")
    generalization_gap: float | None
    points: list[ComplexityPoint]
    smaller: SmallerTrial | None
    says: list[str]


class ParameterDifference(Schema):
    parameter: str
    recommended: Scalar | None
    preset: Scalar | None


class StartResult(Schema):
    """How a start of the sweep did."""

    start: str
    title: str | None
    trial: LeaderboardRow
    trades: list[Trade]
    says: str


class NearestPreset(Schema):
    preset: str
    title: str
    source: str
    url: str
    same: int
    differences: list[ParameterDifference]


class Literature(Schema):
    starts: list[StartResult]
    nearest: NearestPreset | None
    says: list[str]


class TargetFit(Schema):
    target: str
    fits: bool
    lacks: str | None
    basis: str = Field(description="how it is known: measured, registered capabilities, or a published table")


class Compatibility(Schema):
    targets: list[TargetFit]
    says: list[str]


class Evidence(Schema):
    data: DataEvidence
    constraints: list[ConstraintSlack]
    complexity: Complexity
    literature: Literature
    compatibility: Compatibility


class ExplainedRecommendation(Recommendation):
    """The recommended trial with the rule, and what the sweep's trials say of it."""

    objectives: list[Objective]
    summary_metrics: list[str] = Field(description="what a summary shows of the trial; as of the leaderboard")
    prefer: list[str]
    within: list[str]
    weights: dict[str, float]
    smaller: SmallerTrial | None = Field(description="set where the overfitting rule put a smaller trial in its place")
    neighbours: list[Neighbour]
    certainty: Certainty
    evidence: Evidence
