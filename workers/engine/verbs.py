"""The verbs of the engine child, each with the type of its answer. What they do is said in __main__.py."""

from __future__ import annotations

from typing import TypedDict

from .protocol import Verb


class Capabilities(TypedDict):
    """What a runtime can do on this machine's device; the fields of the service's schema of the same name."""

    runtime: str
    version: str
    device_model: str
    opset: int
    """the highest ONNX opset that the runtime reads"""
    dtypes: list[str]
    """of model.dtype, those that are worth scoring here"""
    quantizations: list[str]
    """of model.quantization, those that run here beside none"""
    devices: int
    device_memory_bytes: int
    compute_capability: str | None
    build_only: bool
    build_options: list[str]
    """those of the runtime's that a sweep may set"""
    lacks: dict[str, str]
    """what a user might expect here and does not get (`dtype bfloat16`, `execution`) -> why, with its source"""


class BuildSizes(TypedDict):
    """What a build says of its engine."""

    engine_bytes: int
    weights_bytes: int
    activation_bytes: int | None
    """None if a runtime builds for a device that is not here"""
    io_bytes: int
    build_seconds: float


class BuildAnswer(BuildSizes, total=False):
    """The same of an engine that devices share: each of its largest rank."""

    ranks: list[BuildSizes]


class LoadAnswer(TypedDict):
    device_memory_bytes: int
    """By how much loading the engine and running it once grew the memory in use."""


class DeviceState(TypedDict, total=False):
    """A GPU at one moment, as far as it says it; empty of a CPU."""

    nvml: str
    """Why NVML says nothing."""
    driver: str
    sm_clock_mhz: int
    sm_clock_mhz_max: int
    memory_clock_mhz: int
    temperature_c: int
    power_w: float
    throttle_reasons: list[str]
    other_processes: int
    memory_used_bytes: int


class MachineFacts(TypedDict):
    """What does not change while a measurement runs; None if Linux does not say it."""

    cpu_model: str
    cpus_usable: int
    cpu_governor: str | None
    cpu_quota: str | None
    kernel: str
    python: str
    clock: str
    clock_resolution_ns: float
    clock_source: str | None


class EngineEnvironment(TypedDict, total=False):
    """How a loaded engine runs, by its runtime."""

    runtime: str
    runtime_version: str
    device: str
    device_uuid: str
    cuda_graph: bool
    cuda_graph_refused: str | None
    """Why the runs are not launched as a captured graph."""
    waiting: str
    build_options: dict[str, int]
    intra_op_threads: int
    inter_op_threads: int
    execution: str
    spinning: bool
    ranks: int
    """Of a shared engine."""
    rank_latency_ms_p50: list[float]
    """The median of each rank's runs."""


class Environment(MachineFacts, EngineEnvironment):
    """What a measurement was made with, and in what circumstances."""

    load_average_before: list[float] | None
    load_average_after: list[float] | None
    involuntary_switches: int
    warmup_seconds: float
    warmup_runs: int
    measured_seconds: float
    alone_seconds: dict[str, float]
    """What it had the device to itself for: loading (if that was part of its turn), warm_up, timed, plain_enqueues.
    Their sum is all of its turn."""
    stopped_by: str
    """seconds, or confidence in the median."""
    measurements: int
    """How often it was measured until the figures were not noisy, or given up."""
    device_before: DeviceState
    device_after: DeviceState
    figures: list[str]
    """Those that had to be known."""
    median_half_width: float | None
    """The larger half of the 95 % confidence interval of the median, relative to it."""
    input_sets: int


class QueuedEnvironment(Environment, total=False):
    waited_seconds: float
    """For its turn on the device."""


class Percentiles(TypedDict):
    """Of all runs of a measurement."""

    latency_ms_p50: float
    latency_ms_p90: float
    latency_ms_p99: float
    latency_ms_mean: float
    latency_cv: float
    runs_per_s: float


class EnqueuedPercentiles(TypedDict, total=False):
    """Of runs without the captured graph; empty if there is none."""

    latency_ms_enqueue_p50: float
    latency_ms_enqueue_p99: float
    enqueue_host_ms_p50: float


class MeasureAnswer(Percentiles, EnqueuedPercentiles):
    """A measurement of latency."""

    flagged: bool
    """It is noisy."""
    runs: int
    intervals: dict[str, list[float]]
    """Figure -> lower and upper bound of its 95 % confidence interval, in ms, within this process."""
    samples_ms: list[float]
    environment: QueuedEnvironment


class MeasurePromptAnswer(MeasureAnswer):
    """A measurement of a prompt's latency."""

    time_to_first_token_ms: float
    """Median from a prompt on the host to its next token there."""
    time_to_first_token_interval: list[float]


class LoadAndMeasureAnswer(TypedDict):
    """A measurement whose request said what to load."""

    loaded: LoadAnswer
    measured: MeasureAnswer


class LoadAndMeasurePromptAnswer(TypedDict):
    """The same of a prompt."""

    loaded: LoadAnswer
    measured: MeasurePromptAnswer


class LossAnswer(TypedDict):
    """Sums over a split, and the same over its blocks."""

    loss_sum: float
    weight_sum: float
    correct: float
    block_loss_sums: list[float]
    block_weight_sums: list[float]


class Nothing(TypedDict):
    """The answer of a verb that only does something."""


DESCRIBE = Verb[Capabilities]("describe")
WARM_UP = Verb[Nothing]("warm_up")
BUILD = Verb[BuildAnswer]("build")
LOAD = Verb[LoadAnswer]("load")
MEASURE = Verb[LoadAndMeasureAnswer]("measure")
"""A worker always says what to load, and so with the two that follow."""
MEASURE_PROMPT = Verb[LoadAndMeasurePromptAnswer]("measure_prompt")
MEASURE_STEP = Verb[LoadAndMeasureAnswer]("measure_step")
GENERATE = Verb[Nothing]("generate")
RUN = Verb[Nothing]("run")
LOSS = Verb[LossAnswer]("loss")
CLOSE = Verb[Nothing]("close")
LEAVE = Verb[Nothing]("leave")
