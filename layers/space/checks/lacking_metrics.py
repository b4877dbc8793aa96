"""Metrics that a sweep cannot have, and what to do about it."""

from __future__ import annotations

from layers.dataset_facts import DatasetDescription
from layers.declarations.inference.mode import GENERATE
from layers.metrics import metric as declaration_of
from layers.metrics import split_name

GPU_METRICS = ("latency_ms_enqueue_p50", "latency_ms_enqueue_p99")
"""A CPU has no queue of launches to time."""

PROBE_QUALITY = ("device_seconds", "parity_error", "parity_error_worst")
"""What is known at a trial's end, and needs no training."""


def _counts_bytes(dataset: DatasetDescription) -> bool:
    return dataset["tokenizer"] == "byte" or "validation_bytes" in dataset["facts"]


def lacking_metric(
    metric: str, task: str, dataset: DatasetDescription | None, runtime: str | None, *, generates: bool
) -> str | None:
    """Why a sweep cannot have `metric`, in words; None if it can. `dataset` is None if it is not known."""
    if declaration_of(metric).of_generation and not generates:
        return f"{metric} is measured in the mode generate"
    if metric == "test_loss":
        return (
            "no sweep sees the test split: choose by validation_loss, and confirm the choice when the sweep has ended"
        )
    if declaration_of(metric).source == "replicates":
        return f"{metric} says how sure a validation_loss is, not how good: name validation_loss"
    if task == "probe" and declaration_of(metric).stage == "quality" and metric not in PROBE_QUALITY:
        return f"a probe has no {metric}: it has no data and is not trained"
    if metric == "accuracy" and task == "causal_lm":
        return "accuracy is of classification and seq2seq; a causal_lm has validation_loss"
    if metric == "bits_per_byte" and task and task != "causal_lm":
        return f"bits_per_byte is of a causal_lm, not of {task}"
    if metric == "bits_per_byte" and dataset and not _counts_bytes(dataset):
        return (
            "the bytes of this dataset's validation split were not counted: register its file again, or with a "
            "tokenizer that gives the text back"
        )
    if split_name(metric)[0] in GPU_METRICS and runtime == "onnxruntime":
        return f"{metric} is measured on GPUs; onnxruntime runs on the CPU"
    return None


def remedy_of_lacking(metric: str, generates: bool) -> str:
    """What to do about a metric that a sweep cannot have."""
    if declaration_of(metric).of_generation and not generates:
        return f"set inference.mode: {GENERATE} with prompt_tokens and new_tokens, or choose another metric"
    return "choose another metric"
