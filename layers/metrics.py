"""The metrics of a trial: names, units, which way is better, and when they are known. Names are the contract.

`stage` says when a constraint on a metric can be judged: `static` before a trial exists, `hardware` after the engine
was measured, `quality` after it was evaluated on the validation part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["static", "hardware", "quality"]
Goal = Literal["minimize", "maximize"]

STAGES: tuple[Stage, ...] = ("static", "hardware", "quality")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a trial."""

    unit: str
    goal: Goal
    stage: Stage
    meaning: str


METRICS: dict[str, Metric] = {
    "parameter_count": Metric("", "minimize", "static", "trainable parameters of the model"),
    "flops": Metric("", "minimize", "static", "floating-point operations of one inference at inference's shape"),
    "latency_ms_p50": Metric("ms", "minimize", "hardware", "median device time of one inference"),
    "latency_ms_p90": Metric("ms", "minimize", "hardware", "90th percentile of the device time of one inference"),
    "latency_ms_p99": Metric("ms", "minimize", "hardware", "99th percentile of the device time of one inference"),
    "latency_ms_mean": Metric("ms", "minimize", "hardware", "mean device time of one inference"),
    "latency_cv": Metric("", "minimize", "hardware", "standard deviation of the latency over its mean"),
    "latency_ms_enqueue_p50": Metric("ms", "minimize", "hardware", "median device time of a plain enqueue (GPU)"),
    "latency_ms_enqueue_p99": Metric("ms", "minimize", "hardware", "99th percentile of a plain enqueue (GPU)"),
    "throughput_per_s": Metric("1/s", "maximize", "hardware", "sequences a second at inference's shape"),
    "engine_bytes": Metric("B", "minimize", "hardware", "size of the serialized engine"),
    "weights_bytes": Metric("B", "minimize", "hardware", "weights held by the engine"),
    "activation_bytes": Metric("B", "minimize", "hardware", "scratch memory of one execution context"),
    "io_bytes": Metric("B", "minimize", "hardware", "inputs and outputs"),
    "memory_bytes": Metric("B", "minimize", "hardware", "weights + activations + inputs and outputs"),
    "device_memory_bytes": Metric(
        "B",
        "minimize",
        "hardware",
        "what the device (the process, on the CPU) reports over the engine's load and first run",
    ),
    "validation_loss": Metric(
        "nats", "minimize", "quality", "mean cross-entropy of the validation part, by the engine"
    ),
    "reference_loss": Metric("nats", "minimize", "quality", "the same by PyTorch in float32 on the same weights"),
    "precision_gap": Metric("nats", "minimize", "quality", "validation_loss - reference_loss"),
    "training_loss": Metric("nats", "minimize", "quality", "mean cross-entropy over as many training batches"),
    "generalization_gap": Metric("nats", "minimize", "quality", "reference_loss - training_loss"),
    "accuracy": Metric("", "maximize", "quality", "share of right answers (of tokens, for seq2seq)"),
    "bits_per_byte": Metric("bit", "minimize", "quality", "validation_loss / ln 2, where a token is a byte"),
    "test_loss": Metric(
        "nats", "minimize", "quality", "as validation_loss, of the test part; confirmations alone have it"
    ),
    "parity_error": Metric("", "minimize", "quality", "norm(engine - reference) / norm(reference), all tokens"),
    "parity_error_worst": Metric("", "minimize", "quality", "the same of the worst token"),
    "build_seconds": Metric("s", "minimize", "hardware", "time to build the engine"),
    "train_seconds": Metric("s", "minimize", "quality", "time spent training"),
    "device_seconds": Metric("s", "minimize", "quality", "time that the attempt held its device"),
}
