"""What crosses HTTP. Units are in the names; times are RFC 3339 in UTC.

Workers, the client and the page are written against this file; `openapi.json` is made from it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from service.storable import check_storable

SweepState = Literal["active", "paused", "completed", "cancelled", "failed"]
TrialState = Literal["queued", "running", "complete", "infeasible", "pruned", "failed", "cancelled"]
EndCode = Literal[
    "budget_exhausted",
    "space_exhausted",
    "wall_seconds",
    "failures",
    "all_failed",
    "none_feasible",
    "confirmed",
    "cancelled",
]
Outcome = Literal["complete", "infeasible", "pruned", "failed"]
Phase = Literal["check", "build", "measure", "train", "quantize", "rebuild", "remeasure", "evaluate", "finish"]
Runtime = Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]
Scalar = bool | int | float | str

Timestamp = Annotated[
    float,
    PlainSerializer(
        lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        return_type=str,
    ),
]
"""Seconds since the epoch inside, RFC 3339 outside."""

Item = TypeVar("Item")


class Schema(BaseModel):
    """Answers: made by the service, from attributes or keywords."""

    model_config = ConfigDict(from_attributes=True)


class Request(BaseModel):
    """Bodies that callers send: unknown fields and non-finite numbers are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        check_storable(value)
        return value


class Page(Schema, Generic[Item]):
    """One page of a list. Pass `next_page_token` as `page_token` for the next; null at the end."""

    items: list[Item]
    next_page_token: str | None = None


class ProblemItem(Schema):
    pointer: str
    detail: str
    remedy: str = ""


class ProblemDocument(Schema):
    """application/problem+json (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
    errors: list[ProblemItem] = []


# --- sweeps ---------------------------------------------------------------------------------------------------------


class Objective(Schema):
    metric: str
    goal: Literal["minimize", "maximize"]


class Budget(Schema):
    trials: int
    parallel: int
    failures: int
    wall_seconds: float | None = None


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
    state: SweepState
    reason: str | None = Field(description="why it is in this state, or what it waits for")
    end_code: EndCode | None = Field(default=None, description="how it ended; null while it goes on")
    objectives: list[Objective]
    constraints: list[str]
    budget: Budget
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


class SweepDetail(Sweep):
    document: dict[str, Any]


class CostEstimate(Schema):
    """What a sweep will cost if its trials cost what earlier ones did."""

    trial_seconds: float
    device_seconds: float = Field(description="of the whole budget of trials")
    wall_seconds: float = Field(description="the same, with as many workers as `budget.parallel`")
    from_trials: int
    target: str
    median_error_share: float = Field(description="of the fit to those trials")


class SweepPreview(Schema):
    """The answer to `validate_only=true`: everything but a stored sweep."""

    valid: Literal[True] = True
    document: dict[str, Any]
    space: SpaceFacts
    sampler: str
    sampler_reason: str
    notes: list[ProblemItem] = Field(default=[], description="remarks that refuse nothing")
    estimate: CostEstimate | None = Field(
        default=None, description="from earlier trials of the task; null where fewer than 3 ran"
    )


class BudgetExtension(Request):
    """`:extend`: what to add to the budget."""

    trials: int = Field(default=0, ge=0, le=1_000_000, examples=[20])
    wall_seconds: float = Field(default=0, ge=0)
    failures: int = Field(default=0, ge=0)


class Event(Schema):
    sequence: int
    kind: str = Field(
        description="sweep.created, sweep.state, sweep.confirmation, "
        "trial.queued, trial.running, trial.phase, trial.report, trial.ended"
    )
    trial: str | None
    data: dict[str, Any]
    created_at: Timestamp


# --- trials ---------------------------------------------------------------------------------------------------------


class Trial(Schema):
    id: str
    sweep: str
    number: int
    state: TrialState
    phase: Phase | None
    progress: dict[str, Any] | None
    attempt: int
    worker: str | None
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    feasible: bool | None
    violations: dict[str, float] | None = Field(description="constraint -> how far it is broken; <= 0 is kept")
    rank: int | None
    on_front: bool
    reason: str | None
    reused_from: str | None
    started_from: str | None
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class PhaseTime(Schema):
    phase: Phase
    started_at: Timestamp
    seconds: float


class Attempt(Schema):
    attempt: int
    worker: str
    started_at: Timestamp
    ended_at: Timestamp | None
    outcome: str | None
    reason: str | None
    phases: list[PhaseTime]
    log: str


class CurvePoint(Schema):
    step: int
    training_loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    tokens: int | None = None
    seconds: float | None = None


class TrialDetail(Trial):
    configuration: dict[str, Any]
    attempts: list[Attempt] = Field(description="the newest 20")
    curve: list[CurvePoint] = Field(description="losses of the newest attempt; of a long curve a part")
    measurements: dict[str, dict[str, Any]]


class LeaderboardRow(Schema):
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


class Leaderboard(Page[LeaderboardRow]):
    sweep: str
    objectives: list[Objective]
    total: int = Field(description="rows that the filter keeps, on all pages")


class Front(Schema):
    """The trials of Pareto rank 1 among feasible complete ones."""

    sweep: str
    objectives: list[Objective]
    items: list[LeaderboardRow]


class Recommendation(Schema):
    sweep: str
    rule: str = Field(description="how the trial was chosen, in words")
    trial: LeaderboardRow
    configuration: dict[str, Any]
    final: bool = Field(description="false while the sweep is still going")


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
    steps: list[HypervolumeStep]


class Importance(Schema):
    """PED-ANOVA: how differently a parameter's values are spread among the best tenth and among all trials."""

    sweep: str
    trials: int = Field(description="trials that it was calculated from")
    total: int = Field(description="feasible complete trials of the sweep")
    fewest_trials: int = Field(description="with fewer, `objectives` is empty")
    objectives: dict[str, dict[str, float]] = Field(
        description="objective -> parameter -> share; they add up to 1, or are all 0 where nothing differs"
    )
    intervals: dict[str, dict[str, tuple[float, float]]] = Field(
        default={}, description="the same: the middle 90 % of each share over bootstrap resamples of the trials"
    )
    noise: dict[str, dict[str, float]] = Field(
        default={}, description="the same: what the share of a parameter without any effect stays below 19 times in 20"
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


# --- datasets -------------------------------------------------------------------------------------------------------


class Part(Schema):
    tokens: int | None = None
    examples: int | None = None
    sha256: str


class Dataset(Schema):
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
    created_at: Timestamp


class Implication(Schema):
    """What a dataset's profile means for a model of it."""

    kind: str = Field(description="range, warning or note")
    says: str
    source: str | None = None


class DatasetDetail(Dataset):
    profile: dict[str, Any]
    implications: list[Implication] = Field(default=[], description="what the profile means for a model of it")


# --- what can be swept ----------------------------------------------------------------------------------------------


class ParameterSupport(Schema):
    supported: bool
    note: str = Field(description="under which condition, or why not; empty where it is simply supported")
    values: dict[str, str] = Field(description="single values that need something, or that the runtime has not: why")


class LayerParameter(Schema):
    path: str
    type: Literal["boolean", "integer", "number", "string"]
    default: Scalar | None
    required: bool
    minimum: float | None
    maximum: float | None
    choices: list[str]
    meaning: str
    source: str
    search: dict[str, Any] | None = Field(description="a search default that can be pasted into a sweep document")
    per_layer: bool = Field(description="whether it can be independent in each layer")
    targets: dict[str, ParameterSupport] = Field(description="what each runtime supports of it")


class LayerKind(Schema):
    section: str = Field(description="model, attention, mlp, norm, embedding, training or inference")
    kinds: list[str]
    parameters: list[LayerParameter]


class Preset(Schema):
    name: str
    task: str
    title: str
    source: str
    url: str
    document: dict[str, Any] = Field(description="the parts of a sweep document that it sets")


class Target(Schema):
    key: str
    runtime: Runtime
    version: str
    device_model: str
    capabilities: dict[str, Any]
    workers: list[str]


# --- workers and leases ---------------------------------------------------------------------------------------------


Dtype = Literal["float32", "tf32", "float16", "bfloat16"]
ShortText = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=2000)]


class Device(Request):
    kind: Literal["cpu", "gpu"]
    uuid: str = Field(max_length=128, description="the GPU's UUID, or cpu-<machine id>", examples=["cpu-4f1c"])
    model: str = Field(max_length=200, examples=["Intel Xeon"])
    memory_bytes: int = Field(ge=0, examples=[8_589_934_592])


class Capabilities(Request):
    """What one target on one device supports. A point that needs more is rejected before it becomes a trial."""

    runtime: Runtime
    version: str = Field(max_length=64)
    device_model: str = Field(max_length=200)
    opset: int = Field(ge=7, le=64, description="the highest ONNX opset that the runtime's parser reads")
    dtypes: list[Dtype] = Field(max_length=16)
    quantizations: list[ShortText] = Field(
        default=[], max_length=16, description="of `model.quantization`, beside none"
    )
    devices: int = Field(default=1, ge=1)
    device_memory_bytes: int = Field(ge=0)
    compute_capability: ShortText | None = None
    build_only: bool = False
    build_options: list[ShortText] = Field(
        default=[], max_length=64, description="parameters of `inference` that its builder takes"
    )
    lacks: dict[ShortText, Text] = Field(
        default={}, max_length=256, description="what is missing here, as `dtype bfloat16`, and why"
    )


class WorkerRegistration(Request):
    name: str = Field(min_length=1, max_length=128, examples=["gpu-7"])
    device: Device
    targets: list[Capabilities] = Field(min_length=1, max_length=8)
    versions: dict[ShortText, Text] = Field(
        default={},
        max_length=64,
        description="results (the worker's RESULTS_VERSION; left out: 1), layersweep, python, torch, driver, ...",
    )


class Worker(Schema):
    id: str
    project: str | None = Field(description="whose trials it claims; null: those of all projects")
    name: str
    device: dict[str, Any]
    targets: list[dict[str, Any]]
    versions: dict[str, Any]
    alive: bool
    trial: str | None = Field(description="the trial that it runs now")
    registered_at: Timestamp
    last_seen_at: Timestamp


class Registered(Schema):
    """The answer to a registration."""

    id: str
    lease_seconds: float = Field(description="how long a lease lasts without a heartbeat")
    heartbeat_seconds: float = Field(description="how often to send one")
    target_keys: list[str]


class LeaseRequest(Request):
    worker: str = Field(max_length=26, examples=["01M891VDZHPG894V15G3RXXVWP"])


class LeaseDataset(Schema):
    id: str
    name: str
    task: str
    sha256: str
    facts: dict[str, Any]
    parts: dict[str, Part]
    """training and validation; test for the attempts of a confirmation alone"""


class Lease(Schema):
    """The right to execute one attempt: everything that a worker needs to know."""

    trial: str
    attempt: int
    sweep: str
    number: int
    runtime: Runtime
    target_key: str
    configuration: dict[str, Any] = Field(description="task, model, training, inference; paths flat below each")
    dataset: LeaseDataset | None
    constraints: list[str] = Field(
        description="all of the sweep's: the worker stops after measure when a hardware one is broken"
    )
    lease_seconds: float


class LeaseAnswer(Schema):
    """The answer to a heartbeat or a report."""

    action: Literal["continue", "cancel", "prune"]
    lease_seconds: float


class Losses(Request):
    step: int = Field(ge=0, le=2**31 - 1)
    training_loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    tokens: int | None = None
    seconds: float | None = None


class LeaseReport(Request):
    """Where an attempt is. `phase` when a new one begins, `losses` as they come, `log` lines to keep.

    Phases come in the order of `Phase`; some may be left out. Of a long curve and a long log a part is kept.
    """

    phase: Phase | None = None
    progress: dict[str, Any] | None = Field(default=None, description="{step, ...} of a training, {waiting_for}")
    losses: list[Losses] = Field(default=[], max_length=1000)
    log: str = Field(default="", max_length=65_536, examples=["step 100: training loss 2.31\n"])


class LeaseFinish(Request):
    outcome: Outcome
    reason: str | None = Field(default=None, max_length=4000)
    metrics: dict[str, float] = Field(
        default={},
        max_length=64,
        description="names of layers.metrics.METRICS, each in its range; parameter_count and flops are the service's",
        examples=[{"latency_ms_p50": 0.41}],
    )
    measurements: dict[str, dict[str, Any]] = Field(default={}, description="raw samples, environment, parity, ...")
    log: str = Field(default="", max_length=65_536)


class ArtifactOffer(Request):
    """What an attempt is about to finish with: whether its files are kept depends on it."""

    metrics: dict[str, float] = Field(examples=[{"latency_ms_p50": 0.41}])


class ArtifactAnswer(Schema):
    wanted: list[str] = Field(description="names of the files to upload; empty: none")


class Artifact(Schema):
    name: str
    size_bytes: int
    sha256: str
    created_at: Timestamp


class LeaseRelease(Request):
    reason: str = Field(max_length=4000, examples=["the worker drains"])
    charge: bool = Field(
        default=False, description="true: the attempt counts (a child was killed); false: the worker drains"
    )


# --- access -----------------------------------------------------------------------------------------------------------


class Project(Schema):
    name: str
    created_at: Timestamp


class NewProject(Request):
    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["vision"])


class NewToken(Request):
    name: str = Field(min_length=1, max_length=128, description="for whom or what it is", examples=["ci"])
    scopes: list[Literal["read", "submit", "work", "admin"]] = Field(
        min_length=1, max_length=4, description="submit holds read; admin holds both", examples=[["submit"]]
    )
    project: str | None = Field(
        default=None,
        max_length=64,
        description="the project that it is bound to; null reaches all projects. Left out: the caller's",
        examples=["default"],
    )
    expires_in_days: float | None = Field(default=None, gt=0, le=3650, description="null: never", examples=[90])


class Token(Schema):
    id: str
    name: str
    project: str | None = Field(description="null: all projects")
    scopes: list[str]
    made_by: str
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    last_used_at: Timestamp | None = Field(description="to the minute")


class CreatedToken(Token):
    token: str | None = Field(
        description="the token itself, shown this once; null in a repeated answer to the same Idempotency-Key"
    )


class AuditRecord(Schema):
    """One change, and who made it."""

    id: str
    created_at: Timestamp
    actor: str = Field(description="the name of the token; anonymous where the service had none")
    token_id: str | None
    project: str | None
    action: str = Field(description="<noun>.<verb>, for example sweep.cancel")
    subject: str = Field(description="the id or name of what was changed")
    request_id: str | None
    address: str | None = Field(description="where the request came from; null: the command line on the machine itself")


# --- webhooks ---------------------------------------------------------------------------------------------------------

WebhookEvent = Literal[
    "sweep.created", "sweep.active", "sweep.paused", "sweep.completed", "sweep.cancelled", "sweep.failed"
]
_URL = Field(max_length=2000, description="https://... or http://..., at a public address")
_EVENTS = Field(min_length=1, max_length=6, description="what it is told of", examples=[["sweep.completed"]])
Url = Annotated[str, _URL]
Events = Annotated[list[WebhookEvent], _EVENTS]


class NewWebhook(Request):
    url: Url = Field(examples=["https://example.com/layersweep"])
    events: Events = ["sweep.completed", "sweep.cancelled", "sweep.failed"]


class WebhookChange(Request):
    """What is left out stays as it is."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = Field(default=None, description="false: nothing is queued or sent", examples=[False])


class Webhook(Schema):
    id: str
    project: str
    url: str
    events: list[str]
    enabled: bool
    made_by: str
    created_at: Timestamp


class CreatedWebhook(Webhook):
    secret: str | None = Field(
        description="what its deliveries are signed with, shown this once; null in a repeated answer to the same key"
    )


class WebhookDelivery(Schema):
    """One message: at least once it was, or will be, sent."""

    id: str = Field(description="its `webhook-id`, the same at every try")
    state: Literal["pending", "delivered", "failed"]
    body: dict[str, Any]
    tries: int
    status: int | None = Field(description="the last answer's HTTP status; null: there was no answer")
    last_error: str | None
    due_at: Timestamp = Field(description="when it is tried next, while it is pending")
    created_at: Timestamp
    ended_at: Timestamp | None
