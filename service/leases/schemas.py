"""Workers, their leases and the trials that they execute, as they cross HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from layers.configuration import Configuration
from layers.labels import problem_of
from layers.metrics import LARGEST
from layersweep.json_values import JsonObject
from service.common.noise import FEASIBLE, NOISE, TrialNoise
from service.common.schemas import AS_STORED, MAX_COUNT, Count, Integer, Request, Scalar, Schema, Timestamp, whole
from service.common.states import TrialState
from service.database.dataset_columns import Facts
from service.database.json_columns import DeviceFacts, DeviceUse, PredictedHardware, RegisteredTarget
from service.datasets.schemas import Part

Outcome = Literal["complete", "infeasible", "pruned", "failed"]
Phase = Literal["check", "build", "measure", "train", "quantize", "rebuild", "remeasure", "evaluate", "finish"]
Runtime = Literal["tensorrt", "tensorrt_rtx", "onnxruntime"]
WaitCause = Literal["measurement_turn", "build_turn", "training_turn", "evaluation_turn", "memory"]
"""What an attempt may wait for on its device."""

MAX_SLOTS = 64
"""Attempts that one worker may execute at once."""

Slots = Annotated[int, Field(ge=1, le=MAX_SLOTS), BeforeValidator(whole)]


class Trial(Schema):
    id: str
    sweep: str
    number: int
    state: TrialState
    phase: Phase | None
    progress: JsonObject | None
    attempt: int
    worker: str | None
    parameters: dict[str, Scalar | None]
    metrics: dict[str, float]
    feasible: bool | None = Field(description=FEASIBLE)
    violations: dict[str, float] | None = Field(description="constraint -> how far it is broken; <= 0 is kept")
    noise: TrialNoise | None = Field(default=None, description=NOISE)
    rank: int | None
    on_front: bool
    reason: str | None
    reused_from: str | None
    started_from: str | None
    promoted: bool = Field(default=False, description="it was pruned, and somebody wants it trained to its end")
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


class Training(Schema):
    """One training of a trial's configuration."""

    trial: str = Field(description="whose attempts trained it: the trial itself, or a replicate of it")
    seed: int
    state: TrialState
    validation_loss: float | None


class TrialDetail(Trial):
    replicate_of: str | None = Field(description="the trial that this one trains again; null for a point of its own")
    trainings: list[Training] = Field(
        description="of a trial that was trained again: all its trainings, its own first. Its figures are their means"
    )
    predicted: Annotated[PredictedHardware, AS_STORED] | None = Field(
        default=None,
        exclude_if=lambda predicted: predicted is None,
        description="what stood in for a build before its training: its metrics are measured all the same",
    )
    configuration: Annotated[Configuration, AS_STORED]
    attempts: list[Attempt] = Field(description="the newest 20")
    curve: list[CurvePoint] = Field(description="losses of the newest attempt; of a long curve a part")
    measurements: dict[str, JsonObject]


MOST_METRICS = 256
"""Of one attempt: more than there are at as many shapes as a sweep may name."""

Dtype = Literal["float32", "tf32", "float16", "bfloat16"]
ShortText = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=2000)]


class Device(Request):
    kind: Literal["cpu", "gpu"]
    uuid: str = Field(
        max_length=128,
        description="the GPU's UUID, those of several joined by +, or cpu-<machine id>",
        examples=["cpu-4f1c"],
    )
    model: str = Field(max_length=200, examples=["Intel Xeon"])
    memory_bytes: Count = Field(examples=[8_589_934_592])


class Capabilities(Request):
    """What one target on one device supports. A point that needs more is rejected before it becomes a trial."""

    runtime: Runtime
    version: str = Field(max_length=64)
    device_model: str = Field(max_length=200)
    opset: Integer = Field(ge=7, le=64, description="the highest ONNX opset that the runtime's parser reads")
    dtypes: list[Dtype] = Field(max_length=16)
    quantizations: list[ShortText] = Field(
        default=[], max_length=16, description="of `model.quantization`, beside none"
    )
    devices: Integer = Field(default=1, ge=1, le=MAX_COUNT, description="that can share an engine: `tp_size`")
    link: ShortText | None = Field(default=None, description="how they are connected", examples=["NVLink"])
    device_memory_bytes: Count
    compute_capability: ShortText | None = None
    build_only: bool = False
    build_options: list[ShortText] = Field(
        default=[], max_length=64, description="parameters of `inference` that its builder takes"
    )
    lacks: dict[ShortText, Text] = Field(
        default={}, max_length=256, description="what is missing here, as `dtype bfloat16`, and why"
    )


def _checked_labels(labels: dict[str, str]) -> dict[str, str]:
    if (problem := problem_of(labels)) is not None:
        raise ValueError(problem)
    return labels


Labels = Annotated[dict[str, str], AfterValidator(_checked_labels)]


class WorkerRegistration(Request):
    name: str = Field(min_length=1, max_length=128, examples=["gpu-7"])
    device: Device
    targets: list[Capabilities] = Field(min_length=1, max_length=8)
    slots: Slots = Field(default=1, description="attempts that it executes at once: it is given no more leases")
    labels: Labels = Field(
        default={}, description="what sweeps may ask for by `target.labels`", examples=[{"site": "a"}]
    )
    versions: dict[ShortText, Text] = Field(
        default={},
        max_length=64,
        description="results (the worker's RESULTS_VERSION; left out: 1), layersweep, python, torch, driver, ...",
    )


class Execution(Schema):
    """What one busy slot of a worker does."""

    trial: str
    sweep: str
    sweep_name: str
    number: int = Field(description="of the trial in its sweep")
    attempt: int
    phase: Phase | None = Field(description="null before the attempt has said its first one")
    since: Timestamp = Field(description="when the phase began, or without one the attempt")
    wait_cause: WaitCause | None = Field(
        description="what it waits for on the device: a turn to measure, build, train or evaluate, or memory. null: it "
        "does not wait, or its worker says it in words alone"
    )
    waiting_for: str | None = Field(description="the same in the words of the worker")


class Worker(Schema):
    id: str
    project: str | None = Field(description="whose trials it claims; null: those of all projects")
    name: str
    device: Annotated[DeviceFacts, AS_STORED]
    targets: list[Annotated[RegisteredTarget, AS_STORED]]
    versions: Annotated[dict[str, str], AS_STORED]
    labels: dict[str, str] = Field(default={}, description="what its owner says of it")
    slots: int = Field(description="attempts that it executes at once, at most")
    alive: bool
    busy_slots: int = Field(description="how many it executes now, those of other projects among them")
    trial: str | None = Field(description="the trial that it runs now; of several, the oldest")
    trials: list[str] = Field(
        description="the trials that it runs now, the oldest first; those of another project are left out"
    )
    executions: list[Execution] = Field(
        default=[], description="what its busy slots do, the oldest trial first; those of another project are left out"
    )
    device_busy_share: float | None = Field(
        default=None,
        description="of the last ten minutes, or since it registered, in which an attempt held its device; null: it is "
        "not alive",
    )
    slots_busy_share: float | None = Field(default=None, description="the same of the time of all its slots")
    device_use: Annotated[DeviceUse, AS_STORED] | None = Field(
        default=None,
        description="how busy its device was, by its own word: {busy_share, over_seconds, source}, as it reported it. "
        "null: it is not alive, or has not said it for three minutes",
    )
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
    at_most: Slots | None = Field(
        default=None,
        description="how many leases to give at once, as far as the worker's slots are free; the answer is then "
        "{leases: [...]}. Left out: the answer is one lease",
        examples=[4],
    )


class LeaseDataset(Schema):
    id: str
    name: str
    task: str
    sha256: str
    facts: Annotated[Facts, AS_STORED]
    parts: dict[str, Part]
    """training and validation; test for the attempts of a confirmation alone"""


class TrainingState(Schema):
    """The state of a training that a pruner has stopped."""

    sha256: str


class Lease(Schema):
    """The right to execute one attempt: everything that a worker needs to know."""

    trial: str
    attempt: int
    sweep: str
    number: int
    runtime: Runtime
    target_key: str
    configuration: Annotated[Configuration, AS_STORED] = Field(
        description="task, model, training, inference; paths flat below each"
    )
    dataset: LeaseDataset | None
    constraints: list[str] = Field(
        description="all of the sweep's: the worker stops after measure when a hardware one is broken"
    )
    hardware_first: bool = Field(
        description="true: build and measure before training, and again after it; false: train first, then build and "
        "measure once. A worker that does not know the field does the former"
    )
    measure: bool = Field(
        default=True,
        description="false: a further training of a configuration that was measured: train first, build and evaluate, "
        "and leave measure out. A worker that does not know the field measures it in vain",
    )
    metrics_in_use: list[str] = Field(
        description="those of the sweep's objectives and constraints: a measurement goes on until what they are of a "
        "latency is known, within its bounds of time"
    )
    rungs: list[int] = Field(
        default=[],
        description="steps of the training at which the service judges whether it is worth going on. Where there are "
        "some, report what was measured before the training as `metrics`, and the losses as they come",
    )
    training_state: TrainingState | None = Field(
        default=None,
        description="of a trial that was pruned and promoted: the state that the stopped attempt has left, to be had "
        "at /v1/leases/{trial}/{attempt}/training-state. The training goes on from there, and its curve has the points "
        "before. A worker that does not know the field trains from the beginning: the result is the same",
    )
    lease_seconds: float


class Leases(Schema):
    """The answer to a claim with `at_most`."""

    leases: list[Lease] = Field(description="one or more, the oldest trial first")


class FinishedTrial(Trial):
    """The answer to a finish."""

    lease: Lease | None = Field(
        default=None,
        description="the worker's next lease, where `claim` asked for one and there was something to claim",
    )


Action = Literal["continue", "cancel", "prune", "infeasible"]
"""What becomes of an attempt; `infeasible` answers a report alone: its metrics break a constraint."""


class LeaseAnswer(Schema):
    """The answer to a heartbeat or a report."""

    action: Action = Field(
        description="continue; cancel: release it; prune, infeasible: finish with that outcome and the reason"
    )
    reason: str | None = Field(default=None, description="why the attempt is to end")
    keep_training_state: bool = Field(
        default=False,
        description="true with `prune`: upload the state of the training, from which it can go on, as the artifact "
        "training_state.pt before the finish. A worker may leave it out",
    )
    lease_seconds: float


class Losses(Request):
    step: Integer = Field(ge=0, le=2**31 - 1)
    training_loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    tokens: Count | None = None
    seconds: float | None = None


class FigureNoise(Request):
    """How certain a metric is that was timed: a 95 % confidence interval, processes' differences in it."""

    low: float = Field(ge=0, le=LARGEST)
    high: float = Field(ge=0, le=LARGEST)
    processes: Integer = Field(default=1, ge=1, le=64, description="in how many it was measured; the metric is a mean")
    spread: float | None = Field(
        default=None, ge=0, le=LARGEST, description="standard deviation between them, relative to the metric"
    )
    known: bool = Field(
        default=False, description="it is judged by its figure, even where a constraint's limit lies in the interval"
    )


NoiseByMetric = Annotated[
    dict[str, FigureNoise],
    Field(
        max_length=MOST_METRICS,
        description="metric -> how certain it is. A constraint whose limit lies in the interval of a metric that is "
        "not known cannot be judged. A metric that is left out is exactly what it says",
        examples=[{"latency_ms_p50": {"low": 0.40, "high": 0.42, "processes": 1}}],
    ),
]


class LeaseReport(Request):
    """Where an attempt is. `phase` when a new one begins, `losses` as they come, `log` lines to keep.

    Phases come in the order of `Phase`, or where training comes first: check, train, quantize, build, measure,
    evaluate, finish. Some may be left out. Of a long curve and a long log a part is kept.
    """

    phase: Phase | None = None
    progress: JsonObject | None = Field(
        default=None, description="{step, ...} of a training, {waiting_for, wait_cause}"
    )
    losses: list[Losses] = Field(default=[], max_length=1000)
    metrics: dict[str, float] = Field(
        default={},
        max_length=MOST_METRICS,
        description="measured so far, as in a finish: the service judges the hardware constraints by them, as long as "
        "nothing was trained, and a pruner compares trials by them. The finish says them again",
        examples=[{"latency_ms_p50": 0.41}],
    )
    noise: NoiseByMetric = Field(default={})
    log: str = Field(default="", max_length=65_536, examples=["step 100: training loss 2.31\n"])


class LeaseFinish(Request):
    outcome: Outcome
    reason: str | None = Field(default=None, max_length=4000)
    metrics: dict[str, float] = Field(
        default={},
        max_length=MOST_METRICS,
        description="names of layers.metrics.METRICS, each in its range; parameter_count and flops are the service's",
        examples=[{"latency_ms_p50": 0.41}],
    )
    measurements: dict[str, JsonObject] = Field(default={}, description="raw samples, environment, parity, ...")
    noise: NoiseByMetric = Field(default={})
    log: str = Field(default="", max_length=65_536)
    claim: bool = Field(
        default=False,
        description="true: claim the worker's next trial with this finish, without waiting for one. The same finish "
        "again answers the same lease, while that is held",
    )


class LeaseRelease(Request):
    reason: str = Field(max_length=4000, examples=["the worker drains"])
    charge: bool = Field(
        default=False, description="true: the attempt counts (a child was killed); false: the worker drains"
    )
