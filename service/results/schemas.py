"""The results of a sweep as they cross HTTP: leaderboard, front, axes, importances and effects."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from service.common.noise import FEASIBLE, NOISE, TrialNoise
from service.common.schemas import Page, Scalar, Schema, Timestamp
from service.common.states import TrialState
from service.noise.sweep_noise import SweepNoise
from service.sweeps.schemas import Objective

Interval = Annotated[
    tuple[float, float], WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
]
"""Lower and upper bound: of one type, which more readers of a description understand than a tuple's own form."""


class LeaderboardRow(Schema):
    trial: str
    number: int
    state: TrialState
    rank: int | None
    on_front: bool
    tied: bool | None = Field(
        default=None,
        description="ranked behind the front, but what betters it there does so by less than the latencies are known "
        "to; null where that was not looked at: in exports, and beside a recommendation",
    )
    feasible: bool | None = Field(description=FEASIBLE)
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    noise: TrialNoise | None = Field(default=None, description=NOISE)
    reason: str | None
    reused_from: str | None
    started_from: str | None


class Leaderboard(Page[LeaderboardRow]):
    sweep: str
    objectives: list[Objective]
    summary_metrics: list[str] = Field(
        description="what a summary of its trials shows, as far as they have it: objectives, then what constraints "
        "name, then the latencies of its mode of inference, memory and parameters, and what was learnt"
    )
    total: int = Field(description="rows that the filter keeps, on all pages")
    noise: SweepNoise = Field(description="how noisy the sweep's measurements are, whatever the filter keeps")


class Front(Schema):
    """The trials of Pareto rank 1 among feasible complete ones."""

    sweep: str
    objectives: list[Objective]
    items: list[LeaderboardRow]


class BrokenConstraint(Schema):
    """A constraint that trials of a sweep broke, and the trial that came nearest to fulfilling it."""

    constraint: str
    broken: int = Field(description="trials that broke it")
    judged: int = Field(description="trials whose figures it could be judged by")
    undecided: int = Field(description="trials that cannot be judged by it: the limit lies within their noise")
    nearest: int = Field(description="number of the trial that missed it by least")
    by: float = Field(description="by how much that one missed it, in the constraint's unit")
    says: str


class LoosenedConstraint(Schema):
    """A constraint with a limit that allows more."""

    constraint: str
    by: float = Field(description="how much more is allowed, in the constraint's unit")
    limit: float | None = Field(description="the new limit; null where it is no limit on one metric")
    allow: str = Field(description="the constraint with that limit, as a sweep document writes it where it has one")


class LoosenedLimits(Schema):
    """Limits under which so many of a sweep's trials would be feasible, by what was measured of them.

    Where several constraints are in the way they are loosened together: the one that is loosened most, as a share of
    its limit, is loosened by as little as possible.
    """

    feasible: int
    limits: list[LoosenedConstraint]
    trials: list[int] = Field(description="numbers of the trials that would be feasible, the nearest first")
    unknown: list[str] = Field(description="constraints that not all of them were judged by: they were not trained")
    says: str


class ConstraintSummary(Schema):
    """How the trials of a sweep did by its constraints."""

    sweep: str
    judged: int = Field(description="trials that were judged by constraints, further trainings left out")
    not_judged: int = Field(description="complete trials that cannot be judged: a limit lies within their noise")
    feasible: int = Field(description="of these, complete and feasible ones")
    constraints: list[BrokenConstraint] = Field(description="those that trials broke")
    loosened: list[LoosenedLimits] = Field(description="for 1, 3 and 5 feasible trials, where there are fewer")
    says: list[str]


class ColumnSample(Schema):
    """Metrics and parameters of measured trials, a list each, in the order of the trials' numbers."""

    sweep: str
    total: int = Field(description="measured trials that have all these metrics; fewer may be listed")
    trial: list[str]
    number: list[int]
    state: list[TrialState]
    rank: list[int | None]
    feasible: list[bool] = Field(description="complete, and no constraint is broken")
    values: dict[str, list[Scalar | None]]


class Limit(Schema):
    """Where a constraint on one metric lies."""

    constraint: str
    metric: str
    value: float


class Tradeoff(Schema):
    """Two axes of a sweep. `edge`: the feasible trials that no other betters in these two, in the order of `x`."""

    x: str
    y: str
    sample: ColumnSample
    edge: list[dict[str, float]]
    limits: list[Limit]
    tied: list[str] = Field(
        description="trials behind the front that what betters them there betters by less than the latencies are known "
        "to; empty where more than 1,000 are behind it"
    )


class HypervolumeStep(Schema):
    trials: int = Field(description="how many feasible trials were complete then")
    number: int = Field(description="the trial that raised it")
    ended_at: Timestamp
    share: float


class Hypervolume(Schema):
    """The share of the box between the front's best values and `reference` that the trials so far dominate."""

    sweep: str
    objectives: list[Objective]
    reference: dict[str, float] = Field(description="the worst value of the front, and a tenth of its range beyond")
    trials: int
    steps: list[HypervolumeStep] = Field(description="empty where there is no such box: `reason` says why")
    reason: str | None = Field(default=None, description="why the share of a box means nothing")


class Importance(Schema):
    """PED-ANOVA: how differently a parameter's values are spread among the best tenth and among all trials."""

    sweep: str
    trials: int = Field(description="trials that it was calculated from")
    total: int = Field(description="feasible complete trials of the sweep")
    fewest_trials: int = Field(description="with fewer, `objectives` is empty")
    objectives: dict[str, dict[str, float]] = Field(
        description="objective -> parameter -> share; they add up to 1, or are all 0 where nothing differs"
    )
    intervals: dict[str, dict[str, Interval]] = Field(
        default={}, description="the same: the middle 90 % of each share over bootstrap resamples of the trials"
    )
    noise: dict[str, dict[str, float]] = Field(
        default={}, description="the same: what the share of a parameter without any effect stays below 19 times in 20"
    )
    resamples: dict[str, int] = Field(
        default={}, description="objective -> resamples that these rest on: 10 to 30, fewer where there was no time"
    )
    constant: list[str] = Field(default=[], description="the objectives that do not vary")


class EffectLevel(Schema):
    """One value of the parameter, or the range from `low` to `high`."""

    low: Scalar
    high: Scalar
    trials: int
    best: float
    quartile_1: float
    median: float
    quartile_3: float


class Effect(Schema):
    """A metric of the feasible complete trials by the value of one parameter."""

    sweep: str
    parameter: str
    metric: str
    trials: int
    levels: list[EffectLevel]
    constant: bool = Field(default=False, description="the metric is the same in all of these trials")
