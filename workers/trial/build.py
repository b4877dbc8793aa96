"""Weights → ONNX → engine, for the model and for its loss."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layers.declarations import model as models
from layers.declarations.inference.generation import kv_cache_bytes
from workers.engine.verbs import BUILD, BuildAnswer
from workers.processes.model_verbs import EXPORT, PREPARE, ExportAnswer
from workers.trial.context import TrialContext
from workers.trial.record import metrics_in


@dataclass(frozen=True, slots=True)
class ExportedGraphs:
    """The model's graph, or its shards if devices share it, and the graph of its loss if there is one."""

    name: str
    model: Path
    loss: Path | None
    is_transplanted: bool
    """Whether the weights were put into an earlier graph of the model instead of exporting it again."""


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine file, its key in the cache, and the builder's answer."""

    path: Path
    key: str | None
    """None if the engine is not kept for later trials."""
    answer: BuildAnswer
    from_cache: bool


@dataclass(frozen=True, slots=True)
class BuiltEngines:
    """The engine of the model, and the engine of its loss if there is one."""

    name: str
    onnx: Path
    model: BuiltEngine
    loss: BuiltEngine | None
    is_transplanted: bool


def prepare_model(context: TrialContext) -> None:
    """Let the torch child make the model, with random weights or those of a checkpoint."""
    training = context.configuration.training
    begun = None if training is None else training.checkpoint
    request: dict[str, object] = {"configuration": context.configuration.document}
    if begun is not None:
        request["weights"] = str(context.datasets.checkpoint(*begun, context.interruption))
    prepared = context.request_model(PREPARE, request, context.limits.prepare_seconds)
    if begun is not None:
        taken, not_taken = prepared["initialized"], prepared["left"]
        context.record.set_measurement("initialization", {"checkpoint": begun[0], "taken": taken, "left": not_taken})
        reasons = "".join(f"\n{name}: {reason}" for name, reason in not_taken.items())
        context.lease.log(f"{taken} of {taken + len(not_taken)} tensors begin as in checkpoint:{begun[0]}{reasons}")
    context.record.add_metrics({"parameter_count": prepared["parameter_count"]})
    for shape in context.at_shapes():
        measured = shape.inference
        flops = models.flops(context.model, measured.batch_size, measured.sequence_length, measured.source_length)
        shape.record.add_metrics({"flops": flops})
        cached = kv_cache_bytes(context.model, shape.configuration.document["inference"])
        if cached is not None:
            shape.record.add_metrics({"kv_cache_bytes": cached})


def export(context: TrialContext, name: str, transplant: Literal["prepare", "use"] | None = None) -> ExportedGraphs:
    """Export the model as it is now, quantized if the trial asks for it, and its loss.

    `transplant`: `prepare` keeps a graph that later weights can be put into; `use` puts the current weights into it, or
    exports as usual if there is none.
    """
    path = (context.files.shards if context.rank_devices else context.files.onnx)(name)
    loss = None if context.is_probe or not context.is_scored else context.files.loss_onnx
    exported = write_graph(context, path, context.capabilities["opset"], loss, transplant)
    context.record.add_seconds(f"export_{name}", exported["seconds"])
    if context.is_quantized:
        context.record.set_measurement("quantization", {"products": exported["quantized_products"]})
    return ExportedGraphs(name, path, loss, exported["transplanted"])


def write_graph(
    context: TrialContext,
    path: Path,
    opset: int,
    loss_path: Path | None = None,
    transplant: Literal["prepare", "use"] | None = None,
) -> ExportAnswer:
    """Let the torch child write the model's graph in an opset, and its loss's beside it; return its answer."""
    # A probe has no data, so it is calibrated on the inputs that it is measured on.
    calibration = context.files.measured_inputs if context.is_probe else context.files.calibration
    arguments = {"path": str(path), "opset": opset, "calibration": str(calibration)}
    losses = {"loss_path": str(loss_path)} if loss_path else {}
    transplants = {"transplant": transplant} if transplant else {}
    return context.request_model(
        EXPORT, {**arguments, **losses, **transplants, **other_shape(context)}, context.limits.export_seconds
    )


def other_shape(context: TrialContext) -> dict[str, object]:
    """The shape to export at, for the torch child; empty if it is the only one, which the child knows."""
    return {} if context.shape is None else {"inference": context.configuration.document["inference"]}


def build(context: TrialContext, graphs: ExportedGraphs) -> BuiltEngines:
    """Build the engines of the graphs."""
    if context.rank_devices:
        model = build_shared(context, graphs.name, graphs.model)
    else:
        model = build_engine(context, graphs.name, graphs.model, build_options(context))
    context.record.add_metrics(metrics_in(model.answer))
    loss = _loss_engine(context, graphs.loss) if graphs.loss else None
    return BuiltEngines(graphs.name, graphs.model, model, loss, graphs.is_transplanted)


def exported_again(context: TrialContext, built: BuiltEngines) -> BuiltEngines:
    """Export anew and rebuild: with these weights the earlier graph computes another function."""
    context.lease.log("the weights in the earlier graph are another function: exporting again")
    context.children.start_engine(context.runtime, context.turns)
    return build(context, export(context, built.name))


def _loss_engine(context: TrialContext, onnx: Path) -> BuiltEngine:
    """The engine of the loss. All trials of a shape and a number format share it; of those that start together, one
    builds it."""

    def wait() -> None:
        context.waits.begin("build_turn")
        context.interruption.check()

    try:
        with context.engines.one_at_a_time(_key(context, onnx, {}), wait):
            context.waits.end()
            engine = build_engine(context, "loss", onnx, {})
            keep_for_later_trials(context, engine)
    finally:
        context.waits.end()
    return engine


def keep_for_later_trials(context: TrialContext, engine: BuiltEngine) -> None:
    """Put an engine into the cache, after its parity check: a wrong one would fail other trials, too."""
    if not engine.from_cache and engine.key is not None:
        context.engines.keep(engine.key, engine.path, engine.answer)


def build_options(context: TrialContext) -> dict[str, int]:
    """The builder's options for a model's engine."""
    options = context.inference.build_options()
    return {**options, "tf32": 1} if "tf32" in context.dtypes else options


def build_engine(context: TrialContext, name: str, onnx: Path, options: Mapping[str, int]) -> BuiltEngine:
    """Build `onnx`, or take its engine from the cache."""
    started_at = time.monotonic()
    path = context.files.engine(name)
    key = _key(context, onnx, options)
    cached = context.engines.take(key, path)
    if cached is not None:
        context.record.add_cached_engine(name)
    answer = _request_build(context, onnx, path, options) if cached is None else cached
    context.record.add_seconds(f"build_{name}", time.monotonic() - started_at)
    return BuiltEngine(path, key, answer, from_cache=cached is not None)


def build_shared(context: TrialContext, name: str, shards: Path) -> BuiltEngine:
    """Build the shards of a model that devices share, each on its own device."""
    started_at = time.monotonic()
    path = context.files.engine(name)
    answer = _request_build(context, shards, path, build_options(context), context.rank_devices)
    context.record.add_seconds(f"build_{name}", time.monotonic() - started_at)
    return BuiltEngine(path, None, answer, from_cache=False)


def _key(context: TrialContext, onnx: Path, options: Mapping[str, int]) -> str:
    return context.engines.key(
        onnx,
        runtime=context.runtime,
        version=context.capabilities["version"],
        device=context.device_uuid,
        options=dict(options),
    )


def _request_build(
    context: TrialContext, onnx: Path, path: Path, options: Mapping[str, int], devices: Sequence[str] = ()
) -> BuildAnswer:
    timings = context.engines.timings
    arguments = {
        "runtime": context.runtime,
        "onnx": str(onnx),
        "engine": str(path),
        "options": options,
        "timings": timings and str(timings),
        "devices": list(devices),
    }
    return context.request_builder(BUILD, arguments, timeout_seconds=context.limits.build_seconds)
