"""Sweeps as they cross HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from layers.space.document_fields import BUDGET, MAX_SECONDS, TITLE_PATTERN
from layers.space.normalized_document import NormalizedDocument
from service.common.priorities import Priority
from service.common.schemas import AS_STORED, Integer, ProblemItem, Request, Schema, Timestamp
from service.common.states import SweepState
from service.events.schemas import EndCode
from service.noise.sweep_noise import SweepNoise
from service.pruning.schemas import Pruning


class Objective(Schema):
    metric: str
    goal: Literal["minimize", "maximize"]


class Budget(Schema):
    trials: int
    parallel: int | Literal["auto"] = Field(
        description="trials that may run at once; auto: as many as the living workers have slots, shared between sweeps"
    )
    failures: int
    wall_seconds: float | None = None
    device_seconds: float | None = Field(default=None, description="device time that its attempts may take in all")


class SpaceFacts(Schema):
    """What validation found out about the space."""

    points: int | None = Field(
        description="number of distinct points; null where a parameter is continuous or the space too large to count"
    )
    feasible_share: float = Field(description="share of points that break no rule and no static constraint")
    sampled: bool = Field(description="true: the share comes from samples, false: from enumeration")
    judged: int | None = Field(
        default=None,
        description="points that the share comes from: all, 10,000 samples, or as many as could be judged in time",
    )
    feasible_interval: tuple[float, float] | None = Field(
        default=None,
        description="where the share of all points lies, with 95 % confidence (Wilson) where it comes from samples",
    )
    open_parameters: list[str]
    rejections: dict[str, float] = Field(default={}, description="rule -> share of points that it rejects first")


class Progress(Schema):
    """Trials by state. `rejected` points broke a rule and became no trial."""

    trials: int = Field(description="trials that exist")
    budget: int
    queued: int = 0
    running: int = 0
    complete: int = 0
    infeasible: int = 0
    pruned: int = 0
    failed: int = 0
    cancelled: int = 0
    reused: int = 0
    rejected: int = 0
    replicates: int = Field(default=0, description="further trainings of trials, which the budget counts as trials")


class BestTrial(Schema):
    trial: str
    number: int
    value: float


class Sweep(Schema):
    id: str
    name: str
    project: str
    task: str
    dataset: str | None
    note: str = Field(description="what its people want to remember of it")
    tags: list[str]
    archived: bool = Field(description="lists leave it out unless they are asked for it")
    priority: int = Field(description="trials of sweeps with a higher one are given to workers first")
    state: SweepState
    reason: str | None = Field(description="why it is in this state, or what it waits for")
    end_code: EndCode | None = Field(default=None, description="how it ended; null while it goes on")
    objectives: list[Objective]
    constraints: list[str]
    budget: Budget
    device_seconds: float = Field(description="device time that its finished attempts have taken")
    effective_parallel: int = Field(description="trials that may run at once now, whatever `budget.parallel` says")
    sampler: str
    sampler_reason: str
    space: SpaceFacts
    target: str | None = Field(description="runtime, version and device model; null until it is resolved")
    progress: Progress
    best: dict[str, BestTrial] = Field(default={}, description="objective -> best feasible complete trial")
    version: int = Field(
        description="the sequence of its newest event; changes with everything that happens in the sweep"
    )
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class Transfer(Schema):
    """What a sweep with `search.transfer` starts from: fixed when it gets its target."""

    trials: int
    sweeps: list[str] = Field(
        description="the earlier sweeps that the trials are of, the newest first; some may be gone"
    )


class SparedBuilds(Schema):
    """Builds before a training that a model of the device made needless (`search.device_model`)."""

    trials: int = Field(description="not built first, and trained, to their end or until a pruner stopped them")
    broken: int = Field(description="of them: broke a constraint on the hardware after all, when they were measured")


WaitingCause = Literal["target", "worker", "results_version", "label", "parallel", "quota", "priority", "slot"]


class SweepWait(Schema):
    """Why no worker takes the trials of a sweep."""

    cause: WaitingCause = Field(description="as in `GET /v1/queue`")
    reason: str = Field(description="the same in words: the target, label or capability that living workers lack")


class SweepDetail(Sweep):
    waiting: SweepWait | None = Field(
        default=None, description="why no worker takes its trials; null while one runs, and where one is about to"
    )
    document: Annotated[NormalizedDocument, AS_STORED]
    transfer: Transfer | None = Field(
        default=None,
        exclude_if=lambda transfer: transfer is None,
        description="what it starts from; left out without `search.transfer`, and until it has its target",
    )
    notes: list[ProblemItem] = Field(
        default=[],
        exclude_if=lambda notes: not notes,
        description="remarks that refuse nothing; left out where there are none, and of a sweep that is read later",
    )
    pruning: Pruning
    spared_builds: SparedBuilds | None = Field(
        default=None,
        exclude_if=lambda spared: spared is None,
        description="left out without `search.device_model`",
    )
    noise: SweepNoise


class CostEstimate(Schema):
    """What a sweep will cost if its trials cost what earlier ones did."""

    trial_seconds: float
    device_seconds: float = Field(
        description="of the whole budget of trials, or what `budget.device_seconds` and `budget.wall_seconds` allow"
    )
    wall_seconds: float = Field(
        description="the same, with as many workers as `budget.parallel`; for auto, on its part of the devices of the "
        "workers that live now"
    )
    trials: int = Field(description="of the budget's trials: how many those seconds are enough for")
    parallel: int = Field(description="trials at once: `budget.parallel`, or what auto would stand for now")
    from_trials: int = Field(
        description="complete trials of the task on the target, with at least a fifth of the steps and a tenth of the "
        "floating-point operations a step"
    )
    from_points: int = Field(
        description="points of the space that the mean is over: 60, or as many as could be looked at in time"
    )
    target: str
    median_error_share: float = Field(description="of those trials, each predicted from the others")


class PredictedLimit(Schema):
    """What a constraint leaves of a space, by what is predicted."""

    constraint: str
    kept_share: float = Field(description="of the points that could be predicted: how many are expected to keep it")


class HardwarePrediction(Schema):
    """What the points of a space are predicted to take of a device: from trials that were measured on it."""

    metric: str
    target: str
    from_trials: int = Field(description="measured trials that it rests on")
    error_share: float = Field(description="mean absolute error, each of these trials predicted from the others")
    covered_share: float = Field(description="of these trials: within their own 90 % interval")
    points: int = Field(description="points of the space that were looked at")
    known_points: int = Field(description="of them: like what was measured, so that they are predicted")
    low: float = Field(description="5 % of the predicted points lie below")
    median: float
    high: float = Field(description="5 % of the predicted points lie above")
    limits: list[PredictedLimit]


class UnpredictedMetric(Schema):
    """A metric that no prediction is made of."""

    metric: str
    reason: str


class TransformersShare(Schema):
    """Which points can leave as checkpoints of `transformers`: of all that keep the rules, or of 100 random ones."""

    judged: int = Field(description="points that were looked at")
    architectures: dict[str, int] = Field(description="how many of them are of which", examples=[{"Llama": 71}])
    misfit: str | None = Field(description="what is in the way of one that is of none; null where all are of some")


class SweepPreview(Schema):
    """The answer to `validate_only=true`: everything but a stored sweep."""

    valid: Literal[True] = True
    document: Annotated[NormalizedDocument, AS_STORED]
    space: SpaceFacts
    sampler: str
    sampler_reason: str
    pruner: str = Field(description="none, pareto or asha: how trainings are stopped before their end")
    pruner_reason: str
    notes: list[ProblemItem] = Field(default=[], description="remarks that refuse nothing")
    transformers: TransformersShare | None = Field(default=None, description="null of a probe")
    estimate: CostEstimate | None = Field(
        default=None, description="from comparable earlier trials; null where fewer than 3 ran"
    )
    predictions: list[HardwarePrediction] = Field(
        default=[],
        description="of the latencies of its mode, and of what else of the hardware it decides by; empty where fewer "
        "than 16 trials of the task were measured",
    )
    unpredicted: list[UnpredictedMetric] = Field(
        default=[], description="metrics of the hardware that it decides by and that are not predicted, and why"
    )


class PriorityChange(Request):
    """`:prioritize`: the priority that the sweep has from now on."""

    priority: Priority = Field(
        description="of sweeps with equal ones the one that runs the fewest trials comes first", examples=[3]
    )


class BudgetExtension(Request):
    """`:extend`: what to add to the budget."""

    trials: Integer = Field(default=0, ge=0, le=BUDGET["trials"][2], examples=[20])
    wall_seconds: float = Field(default=0, ge=0, le=MAX_SECONDS)
    device_seconds: float = Field(default=0, ge=0, le=MAX_SECONDS)
    failures: Integer = Field(default=0, ge=0, le=BUDGET["failures"][2])


TAG_PATTERN = "^[a-z0-9][a-z0-9._-]{0,31}$"
MOST_TAGS = 16
Tag = Annotated[str, Field(pattern=TAG_PATTERN)]


class Annotations(Request):
    """What people say of a sweep. What is left out stays as it is. Its document keeps its name."""

    name: str = Field(default="", min_length=1, max_length=200, pattern=TITLE_PATTERN, examples=["baseline"])
    note: str = Field(default="", max_length=4000, examples=["lower learning rates diverge less"])
    tags: list[Tag] = Field(
        default=[], max_length=MOST_TAGS, description="all that it has from now on", examples=[["paper"]]
    )
    archived: bool = Field(default=False, description="true: lists leave it out unless they are asked for it")
