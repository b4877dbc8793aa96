"""Which metrics a summary of a sweep's trials shows, and in which order: on pages, in reports and in terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from layers.declarations.inference.mode import is_generated
from layers.expressions.constraints import parse_constraint
from layers.expressions.metric_names import MetricNames
from layers.metrics import metric, split_name
from layers.parameter import Scalar

LATENCY = ("latency_ms_p50",)
GENERATED = ("prefill_ms_p50", "decode_ms_per_token_p50")
"""What a trial takes of its device where it generates, in place of `LATENCY`."""
SIZES = ("memory_bytes", "parameter_count")
LEARNT = ("validation_loss", "accuracy")


def deciding_metrics(objectives: Sequence[str], document: Mapping[str, object]) -> list[str]:
    """The metrics that a sweep decides by, in full: its objectives', then its constraints'.

    `objectives`: as the sweep has them, which a confirmation has others than its document. `document`: normalized.
    """
    return list(dict.fromkeys([*objectives, *_constrained(document)]))


def latency_metrics(document: Mapping[str, object]) -> list[str]:
    """The latencies that the sweep's mode of inference is told by, at its first shape."""
    inference = cast("Mapping[str, Scalar]", document.get("inference", {}))
    return list(map(MetricNames.of(document).resolve, GENERATED if is_generated(inference) else LATENCY))


def summary_metrics(objectives: Sequence[str], document: Mapping[str, object]) -> list[str]:
    """What a summary shows, as far as a trial has it: what the sweep decides by, the latencies of its mode, memory and
    parameters, and, unless it is a probe, what was learnt.

    What depends on the shape is shown at the shapes that the sweep decides by, else at the first one.
    """
    deciding = deciding_metrics(objectives, document)
    decided = {split_name(name)[0] for name in deciding}
    learnt = () if document.get("task") == "probe" else LEARNT
    usual = [*latency_metrics(document), *map(MetricNames.of(document).resolve, (*SIZES, *learnt))]
    return [*deciding, *(name for name in usual if split_name(name)[0] not in decided)]


def cost_metric(objectives: Sequence[str], document: Mapping[str, object]) -> str:
    """What one objective is weighed against in a picture: the first metric that a constraint limits, of the hardware if
    there is one, else the latency of the sweep's mode."""
    limited = [name for name in _constrained(document) if name not in objectives]
    measured = [name for name in limited if metric(name).stage == "hardware"]
    latencies = [name for name in latency_metrics(document) if name not in objectives]
    return next(iter([*measured, *limited, *latencies, "parameter_count"]))


def _constrained(document: Mapping[str, object]) -> list[str]:
    texts = cast("Sequence[str]", document.get("constraints", []))
    known = MetricNames.of(document).known
    return [known(name) for text in texts for name in parse_constraint(text).metrics]
