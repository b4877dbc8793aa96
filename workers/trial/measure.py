"""How fast the engine is and what it needs, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.configuration import flatten
from layers.expressions.constraints import parse_constraint
from layers.metrics import METRICS
from workers.engine import verbs
from workers.engine.verbs import MeasureAnswer, QueuedEnvironment
from workers.trial.context import TrialContext
from workers.trial.load import LoadedEngine
from workers.trial.outcomes import TrialEndedError
from workers.trial.record import metrics_in

MEASURE = {"warmup_seconds": 0.2, "seconds": 1.5, "min_runs": 50}
"""Of the untrained model: enough to judge constraints by."""

REMEASURE = {"warmup_seconds": 0.2, "seconds": 3.0, "min_runs": 100}
"""Of the trained model, or of a probe: the figures that are reported. It ends earlier once the median is certain."""

SHOWN = "latency_ms_p50"
"""Known of every trial, whatever its sweep decides by: it is what people compare."""

FIGURES: Mapping[str, str] = {
    "latency_ms_p90": "latency_ms_p90",
    "latency_ms_p99": "latency_ms_p99",
    "latency_ms_mean": "latency_ms_mean",
    "latency_cv": "latency_ms_mean",
    "throughput_per_s": "latency_ms_mean",
}
"""Metric -> the figure of the latency that has to be known for it."""

SAMPLE_DIGITS = 5
"""Decimals of the raw samples that are kept: hundredths of a microsecond."""


class TargetEnvironment(QueuedEnvironment):
    """The environment of a measurement, with the target that it counts for."""

    target: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement of latency: all that was measured, with its raw samples, and where."""

    latency: MeasureAnswer
    environment: TargetEnvironment


def measure(context: TrialContext, engine: LoadedEngine, options: Mapping[str, float]) -> Measured:
    """Measure the loaded engine, when it is its turn on the device."""
    answer = context.request(
        engine.process,
        verbs.MEASURE,
        {
            "inputs": str(context.files.measured_inputs),
            "options": options,
            "figures": [SHOWN, *sorted({FIGURES[name] for name in context.metrics_in_use if name in FIGURES})],
        },
        timeout_seconds=context.limits.measure_seconds,
    )
    record_alone(context, answer, options)
    tokens = context.batch_size * context.inference.sequence_length
    metrics = metrics_in(answer) | {
        "throughput_per_s": answer["runs_per_s"] * context.batch_size,
        "device_ms_per_token": answer["latency_ms_p50"] * max(1, len(context.rank_devices)) / tokens,
    }
    environment: TargetEnvironment = {**answer["environment"], "target": context.target_key}
    known = {**engine.metrics, **metrics}
    context.record.add_metrics(metrics)
    context.lease.log(_described(context, known))
    context.record.set_measurement("environment", environment)
    context.record.set_measurement(
        "memory", {name: known[name] for name in METRICS if name.endswith("_bytes") and name in known}
    )
    samples_ms = [round(sample, SAMPLE_DIGITS) for sample in answer["samples_ms"]]
    return Measured({**answer, "samples_ms": samples_ms}, environment)


def record_alone(context: TrialContext, answer: MeasureAnswer, options: Mapping[str, float]) -> None:
    """Keep what a measurement had the device to itself for."""
    timed = "remeasuring" if context.hardware_first and options is REMEASURE else "measuring"
    for part, seconds in answer["environment"]["alone_seconds"].items():
        context.record.add_alone(timed if part == "timed" else part, seconds)


def judge_hardware(context: TrialContext, metrics: Mapping[str, float]) -> None:
    """Raise TrialEndedError if a constraint that is known before the training is broken: nothing is trained for it."""
    values = {**flatten(context.configuration.document), **metrics}
    for text in context.constraints:
        constraint = parse_constraint(text)
        if constraint.stage == "quality":
            continue
        violation = constraint.violation(values)
        if violation is not None and violation > 0:
            found = ", ".join(f"{name} = {values[name]:.6g}" for name in constraint.metrics)
            raise TrialEndedError("infeasible", f"{text} is broken by {violation:.4g}: {found}")


def _described(context: TrialContext, metrics: Mapping[str, float]) -> str:
    """A line for the log: the service gets the figures themselves when the attempt ends."""
    latency = f"{metrics['latency_ms_p50']:,.4f} ms (p50), {metrics['latency_ms_p99']:,.4f} ms (p99)"
    at = "" if context.shape is None else f" at {context.shape}"
    return f"measured{at}: latency {latency}, memory {metrics['memory_bytes']:,.0f} bytes"
