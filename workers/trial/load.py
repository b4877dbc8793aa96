"""Loading an engine in a fresh process, so that all the memory there is the engine's, and checking its parity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from workers.engine.verbs import LOAD, RUN, LoadAnswer
from workers.processes.child import Child
from workers.processes.model_verbs import REFERENCE
from workers.trial import parity
from workers.trial.build import BuiltEngines, keep_for_later_trials
from workers.trial.context import TrialContext
from workers.trial.outcomes import TrialEndedError
from workers.trial.record import metrics_in

THREADED_RUNTIMES = ("onnxruntime",)
"""Runtimes that compute on the CPU and take a number of threads."""

MEMORY_METRICS = ("weights_bytes", "activation_bytes", "io_bytes")
"""The parts of a built engine's memory; their sum is `memory_bytes`."""


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """A process with an engine loaded, and the metrics of the build and the load."""

    process: Child
    built: BuiltEngines
    metrics: Mapping[str, float]


def load(context: TrialContext, built: BuiltEngines) -> LoadedEngine:
    """Load the model's engine in a fresh process; the previous process ends."""
    process = context.children.fresh_engine()
    loaded = context.request(process, LOAD, load_arguments(context, built), timeout_seconds=context.limits.load_seconds)
    return record_load(context, process, built, loaded)


def load_arguments(context: TrialContext, built: BuiltEngines) -> dict[str, object]:
    """The arguments of LOAD for the engine's process."""
    return {
        "runtime": context.runtime,
        "engine": str(built.model.path),
        "options": load_options(context),
        "devices": list(context.rank_devices),
    }


def record_load(context: TrialContext, process: Child, built: BuiltEngines, loaded: LoadAnswer) -> LoadedEngine:
    """Record what a process answered when it loaded the model's engine."""
    context.record.add_metrics(metrics_in(loaded))
    metrics = {**metrics_in(built.model.answer), **metrics_in(loaded)}
    metrics["memory_bytes"] = _memory_bytes(metrics)
    ranks = [{**metrics_in(each), "memory_bytes": _memory_bytes(each)} for each in built.model.answer.get("ranks", ())]
    if ranks:
        context.record.set_measurement("ranks", {"ranks": ranks})
    metrics["total_memory_bytes"] = sum(each["memory_bytes"] for each in ranks) or metrics["memory_bytes"]
    context.record.add_metrics({name: metrics[name] for name in ("memory_bytes", "total_memory_bytes")})
    return LoadedEngine(process, built, metrics)


def _memory_bytes(sizes: Mapping[str, object]) -> float:
    found = metrics_in(sizes)
    return sum(found[name] for name in MEMORY_METRICS)


def load_options(context: TrialContext) -> dict[str, int]:
    """The runtime's options for loading an engine."""
    return {"threads": context.children.threads} if context.runtime in THREADED_RUNTIMES else {}


def computes_the_same(context: TrialContext, engine: LoadedEngine) -> bool:
    """Compare the engine's logits with PyTorch's on a batch of validation inputs.

    A quantized engine is compared with its quantized graph instead, so that an error is the engine's and not that of
    the requested rounding. An engine within the tolerance is kept for later trials. Returns False if weights that were
    put into an earlier graph make it another function. Raises TrialEndedError if the engine is not the model.
    """
    found = _compare(context, engine)
    coarsest = parity.coarsest(context.dtypes)
    tolerance = parity.tolerance(coarsest, context.quantization)
    if engine.built.is_transplanted and not found.kept(tolerance):
        return False
    context.record.add_metrics({"parity_error": found.error, "parity_error_worst": found.worst})
    worst_tolerance = tolerance * parity.WORST_TOKEN_FACTOR
    measured = {"error": found.error, "worst": found.worst} if math.isfinite(found.error + found.worst) else {}
    context.record.extend_measurement(
        "parity", {engine.built.name: measured, "tolerance": tolerance, "tolerance_worst": worst_tolerance}
    )
    if not found.kept(tolerance):
        at = "" if context.shape is None else f" at {context.shape}"
        dtype = f"{coarsest} quantized to {context.quantization}" if context.is_quantized else coarsest
        raise TrialEndedError(
            "failed",
            f"parity{at}: the engine's logits are off by {found.error:.3g} ({found.worst:.3g} at the worst token), "
            f"{dtype} allows {tolerance:g} ({worst_tolerance:g}): it computes another function",
        )
    keep_for_later_trials(context, engine.built.model)
    return True


def _compare(context: TrialContext, engine: LoadedEngine) -> parity.Parity:
    files, limit = context.files, context.limits.run_seconds
    inputs = {"inputs": str(files.parity_inputs)}
    graph = {"graph": str(engine.built.onnx)} if context.is_quantized else {}
    context.request(engine.process, RUN, {**inputs, "outputs": str(files.engine_outputs)}, timeout_seconds=limit)
    context.request_model(REFERENCE, {**inputs, "outputs": str(files.reference_outputs), **graph}, limit)
    return parity.compare_files(files.engine_outputs, files.reference_outputs, context.signature.outputs[0].name)
