"""The metrics of a trial: names, units, which way is better, which values are possible, when they are known, and who
may say them. Names are the contract.

If a sweep names several shapes, what depends on the shape has its name behind an @: `latency_ms_p50@chat`.

`stage` says when a constraint on a metric can be judged: `static` before a trial exists, `hardware` after the engine
was measured, `quality` after it was evaluated on the validation split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["static", "hardware", "quality"]
Goal = Literal["minimize", "maximize"]

Source = Literal["service", "worker", "confirmation", "replicates"]
"""Who says a metric: the service, from the configuration; any worker; a worker in an attempt of a confirmation; the
service, from further trainings of the trial."""

LARGEST = 1e30
"""No figure is beyond it, whatever its unit; squares and products of such figures are still finite."""

ROUNDING = 1e-6
"""A mean of cross-entropies of nearly 0 may be rounded to less than 0 by so much."""

STAGES: tuple[Stage, ...] = ("static", "hardware", "quality")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a trial."""

    unit: str
    goal: Goal
    stage: Stage
    meaning: str
    low: float = 0.0
    high: float = LARGEST
    source: Source = "worker"
    depends_on_load: bool = False
    """A cost that depends on what else runs on the device: comparable only if nothing does."""
    of_shape: bool = False
    """Whether it is another at each shape that is measured."""
    of_generation: bool = False
    """Known in the inference mode `generate` alone."""

    def possible(self, value: float) -> bool:
        """Whether a measurement can come out so."""
        return self.low <= value <= self.high


def _generated(unit: str, meaning: str, goal: Goal = "minimize") -> Metric:
    return Metric(unit, goal, "hardware", meaning, of_shape=True, of_generation=True)


METRICS: dict[str, Metric] = {
    "parameter_count": Metric("", "minimize", "static", "trainable parameters of the model", source="service"),
    "flops": Metric(
        "",
        "minimize",
        "static",
        "floating-point operations of one inference at inference's shape",
        source="service",
        of_shape=True,
    ),
    "latency_ms_p50": Metric("ms", "minimize", "hardware", "median device time of one inference", of_shape=True),
    "latency_ms_p90": Metric(
        "ms", "minimize", "hardware", "90th percentile of the device time of one inference", of_shape=True
    ),
    "latency_ms_p99": Metric(
        "ms", "minimize", "hardware", "99th percentile of the device time of one inference", of_shape=True
    ),
    "latency_ms_mean": Metric("ms", "minimize", "hardware", "mean device time of one inference", of_shape=True),
    "latency_cv": Metric("", "minimize", "hardware", "standard deviation of the latency over its mean", of_shape=True),
    "latency_ms_enqueue_p50": Metric(
        "ms", "minimize", "hardware", "median device time of a plain enqueue (GPU)", of_shape=True
    ),
    "latency_ms_enqueue_p99": Metric(
        "ms", "minimize", "hardware", "99th percentile of a plain enqueue (GPU)", of_shape=True
    ),
    "device_ms_per_token": Metric(
        "ms",
        "minimize",
        "hardware",
        "device time that a token costs: latency_ms_p50 times the devices that share the model, over the tokens of "
        "one inference",
        of_shape=True,
    ),
    "throughput_per_s": Metric("1/s", "maximize", "hardware", "sequences a second at inference's shape", of_shape=True),
    "prefill_ms_p50": _generated("ms", "median device time of a prompt (mode generate)"),
    "prefill_ms_p90": _generated("ms", "90th percentile of the device time of a prompt"),
    "prefill_ms_p99": _generated("ms", "99th percentile of the device time of a prompt"),
    "decode_ms_per_token_p50": _generated("ms", "median device time of a step: one new token of each sequence"),
    "decode_ms_per_token_p90": _generated("ms", "90th percentile of the device time of a step"),
    "decode_ms_per_token_p99": _generated("ms", "99th percentile of the device time of a step"),
    "time_to_first_token_ms": _generated("ms", "median time from a prompt on the host to its next token there"),
    "tokens_per_s": _generated("1/s", "new tokens a second, of all sequences, prompts included", "maximize"),
    "kv_cache_bytes": Metric(
        "B",
        "minimize",
        "static",
        "keys and values of all layers and sequences at the end of a text (mode generate); part of memory_bytes",
        source="service",
        of_shape=True,
        of_generation=True,
    ),
    "engine_bytes": Metric("B", "minimize", "hardware", "size of the serialized engine", of_shape=True),
    "weights_bytes": Metric("B", "minimize", "hardware", "weights held by the engine", of_shape=True),
    "activation_bytes": Metric("B", "minimize", "hardware", "scratch memory of one execution context", of_shape=True),
    "io_bytes": Metric("B", "minimize", "hardware", "inputs and outputs", of_shape=True),
    "memory_bytes": Metric("B", "minimize", "hardware", "weights + activations + inputs and outputs", of_shape=True),
    "total_memory_bytes": Metric(
        "B", "minimize", "hardware", "memory_bytes of all devices that share the model together", of_shape=True
    ),
    "device_memory_bytes": Metric(
        "B",
        "minimize",
        "hardware",
        "what the device (the process, on the CPU) reports over the engine's load and first run",
        of_shape=True,
    ),
    "validation_loss": Metric(
        "nats", "minimize", "quality", "mean cross-entropy of the validation split, by the engine", -ROUNDING
    ),
    "validation_loss_stderr": Metric(
        "nats",
        "minimize",
        "quality",
        "standard error of validation_loss over the seeds of its trainings, where there are several",
        source="replicates",
    ),
    "trainings": Metric(
        "",
        "maximize",
        "quality",
        "trainings that validation_loss and what else was learnt are the mean of, each with a seed of its own",
        source="replicates",
    ),
    "reference_loss": Metric(
        "nats", "minimize", "quality", "the same by PyTorch in float32 on the same weights", -ROUNDING
    ),
    "precision_gap": Metric("nats", "minimize", "quality", "validation_loss - reference_loss", -LARGEST),
    "training_loss": Metric(
        "nats", "minimize", "quality", "mean cross-entropy over as many training batches", -ROUNDING
    ),
    "generalization_gap": Metric("nats", "minimize", "quality", "reference_loss - training_loss", -LARGEST),
    "accuracy": Metric("", "maximize", "quality", "share of right answers (of tokens, for seq2seq)", high=1.0),
    "bits_per_byte": Metric(
        "bit",
        "minimize",
        "quality",
        "validation_loss / ln 2, of a token's bytes on average: comparable between tokenizers",
        -2 * ROUNDING,
    ),
    "test_loss": Metric(
        "nats",
        "minimize",
        "quality",
        "as validation_loss, of the test split; confirmations alone have it",
        -ROUNDING,
        source="confirmation",
    ),
    "parity_error": Metric("", "minimize", "quality", "norm(engine - reference) / norm(reference), all tokens"),
    "parity_error_worst": Metric("", "minimize", "quality", "the same of the worst token"),
    "build_seconds": Metric("s", "minimize", "hardware", "time to build the engine", depends_on_load=True),
    "train_seconds": Metric("s", "minimize", "quality", "time spent training", depends_on_load=True),
    "device_seconds": Metric("s", "minimize", "quality", "time that the attempt held its device", depends_on_load=True),
}

STATIC = ("parameter_count", "flops")
"""The size of a model, which is known of a point before anything is built."""

MODELLED = (
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ms_p99",
    "latency_ms_mean",
    "memory_bytes",
    "engine_bytes",
    "build_seconds",
)
"""Metrics of the hardware by whose model a search may leave out points and builds (`search.device_model`): they are
above 0, and range over orders of magnitude."""

AT = "@"
"""Stands between a metric and the shape that it was measured at."""


def metric(name: str) -> Metric:
    """The declaration of a metric by its name, with a shape or without. Raises KeyError."""
    return METRICS[split_name(name)[0]]


def is_metric(name: str) -> bool:
    """Whether a name is that of a metric, at whatever shape."""
    base, shape = split_name(name)
    declared = METRICS.get(base)
    return declared is not None and (shape is None or (declared.of_shape and shape != ""))


def split_name(name: str) -> tuple[str, str | None]:
    """`latency_ms_p50@chat` as the metric and the shape; None if it names no shape."""
    base, at, shape = name.partition(AT)
    return base, shape if at else None


def named_at(name: str, shape: str | None) -> str:
    """The name of a metric at a shape; as it is if there is no shape, or the metric has none."""
    return f"{name}{AT}{shape}" if shape is not None and name in METRICS and METRICS[name].of_shape else name
