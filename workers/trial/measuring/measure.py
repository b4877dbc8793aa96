"""How fast the engine is and what it needs, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from layers.configuration import flatten
from layers.expressions.constraints import parse_constraint
from layers.metrics import METRICS, split_name
from workers.engine import verbs
from workers.engine.confidence import SHARES, Interval
from workers.engine.latency import thin
from workers.engine.verbs import MeasureAnswer, QueuedEnvironment
from workers.trial.build import BuiltEngines, exported_again
from workers.trial.context import TrialContext
from workers.trial.load import LoadedEngine, computes_the_same, load_arguments, record_load
from workers.trial.measuring.repeats import MEDIANS, ProcessFigures, Repeats
from workers.trial.outcomes import TrialEndedError
from workers.trial.record import Findings, metrics_in

MEASURE = {"warmup_seconds": 0.2, "seconds": 1.5, "min_runs": 50}
"""Options for the untrained model: enough to judge constraints."""

REMEASURE = {"warmup_seconds": 0.2, "seconds": 3.0, "min_runs": 100}
"""Options for the trained model or a probe, whose figures are reported. It ends earlier once they are known."""

SHOWN = "latency_ms_p50"
"""Measured until it is known for every trial, whatever its sweep decides by: it is what people compare."""

FIGURES: Mapping[str, str] = {
    "latency_ms_p90": "latency_ms_p90",
    "latency_ms_p99": "latency_ms_p99",
    "latency_ms_mean": "latency_ms_mean",
    "latency_cv": "latency_ms_mean",
    "throughput_per_s": "latency_ms_mean",
}
"""Metric -> the latency figure that has to be known for it."""

SAMPLE_DIGITS = 5
"""Decimals kept of the raw samples in ms: hundredths of a microsecond."""


class TargetEnvironment(QueuedEnvironment):
    """The environment of a measurement, with its target."""

    target: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A latency measurement with its raw samples and its environment."""

    latency: MeasureAnswer
    environment: TargetEnvironment
    engine: LoadedEngine
    """Loaded in the process that measured last."""


def measure(context: TrialContext, built: BuiltEngines, options: Mapping[str, float]) -> Measured:
    """Load the model's engine in a fresh process and measure it, when it is its turn on the device; near a limit in
    further processes, too. The one before ends.

    The figures are the means over the processes; the raw samples are those of all. None is kept before the engine was
    seen to be the model: TrialEndedError if it is not.
    """
    engine, answer = _loaded_and_measured(context, built, options)
    if not computes_the_same(context, engine):
        return measure(context, exported_again(context, built), options)
    answers = [answer]
    repeats = repeats_of(context, _figures(context, answer))
    while repeats.are_wanted():
        engine, answer = _loaded_and_measured(context, built, options)
        answers.append(answer)
        repeats.add(_figures(context, answer))
    latency = _of_all(answers)
    metrics = repeats.metrics
    environment: TargetEnvironment = {**latency["environment"], "target": context.target_key}
    known = {**engine.metrics, **metrics}
    context.record.add_metrics(metrics)
    context.record.add_noise(repeats.noise)
    context.lease.log(_described(context, known, len(answers)))
    context.record.set_measurement("environment", environment)
    if len(answers) > 1:
        context.record.set_measurement("processes", {"latency": [_summary(each) for each in answers]})
    context.record.set_measurement(
        "memory", {name: known[name] for name in METRICS if name.endswith("_bytes") and name in known}
    )
    samples_ms = [round(sample, SAMPLE_DIGITS) for sample in latency["samples_ms"]]
    return Measured({**latency, "samples_ms": samples_ms}, environment, engine)


def repeats_of(context: TrialContext, first: ProcessFigures) -> Repeats:
    """Decides whether to measure in further processes, by the hardware constraints."""
    known = {**flatten(context.configuration.document), **context.record.findings().metrics}
    parsed = map(parse_constraint, context.constraints)
    return Repeats([each for each in parsed if each.stage == "hardware"], known, first, context.shape)


def _loaded_and_measured(
    context: TrialContext, built: BuiltEngines, options: Mapping[str, float]
) -> tuple[LoadedEngine, MeasureAnswer]:
    """Load and measure in a fresh process by one request, so that both share one turn on the device."""
    process = context.children.fresh_engine()
    answer = context.request(
        process,
        verbs.MEASURE,
        {
            "load": load_arguments(context, built),
            "inputs": str(context.files.measured_inputs),
            "options": options,
            "figures": [SHOWN, *sorted({FIGURES[name] for name in context.metrics_in_use if name in FIGURES})],
        },
        timeout_seconds=context.limits.load_seconds + context.limits.measure_seconds,
    )
    measured = answer["measured"]
    record_alone(context, measured, options)
    return record_load(context, process, built, answer["loaded"]), measured


def _figures(context: TrialContext, answer: MeasureAnswer) -> ProcessFigures:
    """The metrics of one process, and the intervals of those that the sweep uses or people look at."""
    tokens = context.batch_size * context.inference.sequence_length
    devices = max(1, len(context.rank_devices))
    metrics = metrics_in(answer) | {
        "throughput_per_s": answer["runs_per_s"] * context.batch_size,
        "device_ms_per_token": answer["latency_ms_p50"] * devices / tokens,
    }
    intervals = intervals_in(answer)
    intervals["throughput_per_s"] = intervals["latency_ms_mean"].inverse(1000.0 * context.batch_size)
    intervals["device_ms_per_token"] = intervals["latency_ms_p50"].scaled(devices / tokens)
    wanted = {*SHARES, *context.metrics_in_use}
    used = {split_name(name)[0] for name in wanted}
    cvs = dict.fromkeys(MEDIANS, answer["latency_cv"])
    return ProcessFigures(metrics, {name: each for name, each in intervals.items() if name in used}, cvs)


def intervals_in(answer: MeasureAnswer) -> dict[str, Interval]:
    """Figure -> its interval within the process that answered."""
    return {
        figure: Interval(metrics_in(answer)[figure], low, high) for figure, (low, high) in answer["intervals"].items()
    }


def _of_all(answers: Sequence[MeasureAnswer]) -> MeasureAnswer:
    """Merge the measurements of several processes: means of the figures, samples of all."""
    last = answers[-1]
    if len(answers) == 1:
        return last
    return {
        **last,
        "latency_ms_p50": fmean(each["latency_ms_p50"] for each in answers),
        "latency_ms_p90": fmean(each["latency_ms_p90"] for each in answers),
        "latency_ms_p99": fmean(each["latency_ms_p99"] for each in answers),
        "latency_ms_mean": fmean(each["latency_ms_mean"] for each in answers),
        "latency_cv": fmean(each["latency_cv"] for each in answers),
        "runs_per_s": fmean(each["runs_per_s"] for each in answers),
        "flagged": any(each["flagged"] for each in answers),
        "runs": sum(each["runs"] for each in answers),
        "samples_ms": thin(np.concatenate([each["samples_ms"] for each in answers])).tolist(),
    }


def _summary(answer: MeasureAnswer) -> dict[str, object]:
    """A measurement without its samples and environment."""
    return {name: value for name, value in answer.items() if name not in ("samples_ms", "environment")}


def record_alone(context: TrialContext, answer: MeasureAnswer, options: Mapping[str, float]) -> None:
    """Record for how long each part of a measurement had the device to itself."""
    timed = "remeasuring" if context.hardware_first and options is REMEASURE else "measuring"
    for part, seconds in answer["environment"]["alone_seconds"].items():
        context.record.add_alone(timed if part == "timed" else part, seconds)


def judge_hardware(context: TrialContext, findings: Findings) -> None:
    """Raise TrialEndedError if a constraint that is known before the training is broken.

    A trial whose constraints the measurements leave undecided is trained.
    """
    metrics = findings.metrics
    values = {**flatten(context.configuration.document), **metrics}
    intervals = {name: (each["low"], each["high"]) for name, each in findings.noise.items() if not each["known"]}
    for text in context.constraints:
        constraint = parse_constraint(text)
        if constraint.stage == "quality":
            continue
        violation = constraint.violation(values)
        if violation is not None and violation > 0 and constraint.verdict(values, intervals) == "broken":
            found = ", ".join(f"{name} = {values[name]:.6g}" for name in constraint.metrics)
            raise TrialEndedError("infeasible", f"{text} is broken by {violation:.4g}: {found}")


def _described(context: TrialContext, metrics: Mapping[str, float], processes: int) -> str:
    """A line for the log; the service gets the figures themselves when the attempt ends."""
    latency = f"{metrics['latency_ms_p50']:,.4f} ms (p50), {metrics['latency_ms_p99']:,.4f} ms (p99)"
    at = "" if context.shape is None else f" at {context.shape}"
    over = "" if processes == 1 else f" over {processes} processes, as a limit is near"
    return f"measured{at}: latency {latency}{over}, memory {metrics['memory_bytes']:,.0f} bytes"
