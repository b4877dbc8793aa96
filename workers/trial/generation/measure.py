"""How long a prompt and a step take, and what generating needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layers.metrics import split_name
from workers.engine import verbs
from workers.engine.confidence import Interval
from workers.engine.verbs import LoadAnswer, MeasureAnswer, MeasurePromptAnswer
from workers.processes.child import Child
from workers.trial.build import BuiltEngine
from workers.trial.context import TrialContext
from workers.trial.generation.engines import GenerationEngines, exported_again
from workers.trial.generation.parity import computes_the_same, write_inputs
from workers.trial.generation.percentiles import PERCENTILES, summed, weighted_intervals, weighted_percentiles
from workers.trial.load import MEMORY_METRICS, load_options
from workers.trial.measuring.measure import intervals_in, record_alone, repeats_of
from workers.trial.measuring.repeats import MEDIANS, ProcessFigures
from workers.trial.record import metrics_in

FIGURES: Mapping[str, Mapping[str, str]] = {
    part: {f"{part}_p{each}": f"latency_ms_p{each}" for each in PERCENTILES}
    for part in ("prefill_ms", "decode_ms_per_token")
}
"""Part -> metric -> the figure of a measurement that has to be known for it."""

SUMMED = ("engine_bytes", *MEMORY_METRICS)
"""Of the prompt's engine and of the largest one of the steps: buckets differ in the size of their caches alone."""


@dataclass(frozen=True, slots=True)
class MeasuredGeneration:
    """The metrics of generating, and what they come of."""

    metrics: Mapping[str, float]
    measurement: Mapping[str, object]


def measure_generation(
    context: TrialContext, engines: GenerationEngines, options: Mapping[str, float]
) -> MeasuredGeneration:
    """Measure the engines one after another, when it is their turn on the device, and hold their answers against
    PyTorch's.

    Raises TrialEndedError if they compute another function. The process of an engine that is loaded ends.
    """
    write_inputs(context, engines.config)
    found = [_measured(context, engines, options)]
    if not computes_the_same(context, found[0].process, engines, text_seconds=found[0].text_ms / 1000):
        context.lease.log("the weights in the earlier graphs generate another text: exporting again")
        return measure_generation(context, exported_again(context, engines), options)
    repeats = repeats_of(context, found[0].figures)
    while repeats.are_wanted():
        found.append(_measured(context, engines, options))
        repeats.add(found[-1].figures)
    metrics = {**repeats.metrics, **memory_of(engines), "device_memory_bytes": found[0].grown_bytes}
    context.record.add_noise(repeats.noise)
    over = "" if len(found) == 1 else f" over {len(found)} processes, as a limit is near"
    context.lease.log(
        f"measured: prompt {metrics['prefill_ms_p50']:,.4f} ms, "
        f"step {metrics['decode_ms_per_token_p50']:,.4f} ms (p50), {metrics['tokens_per_s']:,.0f} tokens/s{over}"
    )
    return MeasuredGeneration(metrics, _described(engines, found[-1].prefill, found[-1].steps))


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured of a prompt and its steps in one process of each."""

    process: Child
    """That of the steps."""
    prefill: MeasurePromptAnswer
    steps: list[MeasureAnswer]
    figures: ProcessFigures
    text_ms: float
    grown_bytes: float


def _measured(context: TrialContext, engines: GenerationEngines, options: Mapping[str, float]) -> _Measured:
    limit = context.limits.load_seconds + context.limits.measure_seconds
    prompt = context.request(
        context.children.fresh_engine(),
        verbs.MEASURE_PROMPT,
        {
            "load": _what_to_load(context, engines.prefill),
            "inputs": str(context.files.prompts),
            "options": options,
            "figures": _figures(context, "prefill_ms"),
        },
        timeout_seconds=limit,
    )
    prefill = prompt["measured"]
    record_alone(context, prefill, options)
    # A fresh process once more: by how much the memory of the device grows is asked of the largest engine.
    process = context.children.fresh_engine()
    steps: list[MeasureAnswer] = []
    loads: list[LoadAnswer] = []
    share = {**options, "seconds": options["seconds"] / len(engines.steps)}
    for step in reversed(engines.steps):
        arguments = {
            "load": _what_to_load(context, step.engine),
            "position": step.bucket.measured_position,
            "options": share,
            "figures": _figures(context, "decode_ms_per_token"),
        }
        answer = context.request(process, verbs.MEASURE_STEP, arguments, timeout_seconds=limit)
        record_alone(context, answer["measured"], options)
        steps.insert(0, answer["measured"])
        loads.append(answer["loaded"])
        context.request(process, verbs.CLOSE, {}, timeout_seconds=context.limits.load_seconds)
    text_ms = prefill["latency_ms_p50"] + sum(
        step.bucket.steps * measured["latency_ms_p50"] for step, measured in zip(engines.steps, steps, strict=True)
    )
    metrics = {
        **{f"prefill_ms_p{each}": prefill[f"latency_ms_p{each}"] for each in PERCENTILES},
        **_step_metrics(engines, steps, text_ms),
        "time_to_first_token_ms": prefill["time_to_first_token_ms"],
    }
    intervals = _intervals(context, engines, prefill, steps)
    cv_of_steps = max(step["latency_cv"] for step in steps)
    cvs = {name: prefill["latency_cv"] if name.startswith("prefill") else cv_of_steps for name in MEDIANS}
    figures = ProcessFigures(metrics, intervals, cvs)
    grown_bytes = prompt["loaded"]["device_memory_bytes"] + loads[0]["device_memory_bytes"]
    return _Measured(process, prefill, steps, figures, text_ms, grown_bytes)


def _intervals(
    context: TrialContext, engines: GenerationEngines, prefill: MeasurePromptAnswer, steps: Sequence[MeasureAnswer]
) -> dict[str, Interval]:
    """Of the metrics that the sweep uses and the medians."""
    prompt, kinds = intervals_in(prefill), [intervals_in(step) for step in steps]
    counts = [step.bucket.steps for step in engines.steps]
    of_steps = weighted_intervals(
        [step["samples_ms"] for step in steps],
        counts,
        [{each: kind[f"latency_ms_p{each}"] for each in PERCENTILES} for kind in kinds],
    )
    text_ms = summed(prompt["latency_ms_p50"], [kind["latency_ms_p50"] for kind in kinds], counts)
    low, high = prefill["time_to_first_token_interval"]
    found = {
        **{f"prefill_ms_p{each}": prompt[f"latency_ms_p{each}"] for each in PERCENTILES},
        **{f"decode_ms_per_token_p{each}": of_steps[each] for each in PERCENTILES},
        "tokens_per_s": text_ms.inverse(1000.0 * engines.config.batch_size * engines.config.new_tokens),
        "time_to_first_token_ms": Interval(prefill["time_to_first_token_ms"], low, high),
    }
    used = {"prefill_ms_p50", "decode_ms_per_token_p50", *context.metrics_in_use}
    names = {split_name(name)[0] for name in used}
    return {name: each for name, each in found.items() if name in names}


def _what_to_load(context: TrialContext, engine: BuiltEngine) -> dict[str, object]:
    return {"runtime": context.runtime, "engine": str(engine.path), "options": load_options(context)}


def _figures(context: TrialContext, part: str) -> list[str]:
    """The median, and what else the sweep decides by."""
    return sorted(
        {"latency_ms_p50", *(FIGURES[part][name] for name in context.metrics_in_use if name in FIGURES[part])}
    )


def _step_metrics(engines: GenerationEngines, steps: Sequence[MeasureAnswer], text_ms: float) -> dict[str, float]:
    """Of the steps of all buckets, as often as a text does each."""
    counts = [step.bucket.steps for step in engines.steps]
    found = weighted_percentiles([step["samples_ms"] for step in steps], counts)
    tokens = engines.config.batch_size * engines.config.new_tokens
    return {
        **{f"decode_ms_per_token_p{each}": value for each, value in found.items()},
        "tokens_per_s": 1000 * tokens / text_ms,
    }


def memory_of(engines: GenerationEngines) -> dict[str, float]:
    """What generating needs, on its one device. The caches are inputs of the largest engine, and so among its inputs
    and outputs."""
    answers = [metrics_in(engine.answer) for engine in (engines.prefill, engines.largest)]
    summed = {name: sum(each[name] for each in answers) for name in SUMMED if all(name in each for each in answers)}
    if all(name in summed for name in MEMORY_METRICS):
        summed["memory_bytes"] = summed["total_memory_bytes"] = sum(summed[name] for name in MEMORY_METRICS)
    return summed


def _described(engines: GenerationEngines, prefill: MeasureAnswer, steps: Sequence[MeasureAnswer]) -> dict[str, object]:
    buckets = [
        {"capacity": step.bucket.capacity, "steps": step.bucket.steps, **_summary(measured)}
        for step, measured in zip(engines.steps, steps, strict=True)
    ]
    return {"prefill": _summary(prefill), "decode": buckets, "transplanted": engines.is_transplanted}


def _summary(measured: MeasureAnswer) -> dict[str, object]:
    """A measurement without its samples."""
    return {name: value for name, value in measured.items() if name != "samples_ms"}
