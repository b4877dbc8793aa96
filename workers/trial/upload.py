"""The files of a trial that the service wants: if it is on the front now, or a confirmation's."""

from __future__ import annotations

from collections.abc import Mapping

from layers.metrics import split_name
from workers.processes.model_verbs import SAVE
from workers.trial.artifacts import ArtifactDescription, collect
from workers.trial.build import BuiltEngines
from workers.trial.context import TrialContext
from workers.trial.download.generation_plan import generation_plan
from workers.trial.download.readme import DownloadedTrial
from workers.trial.generation.engines import GenerationEngines
from workers.trial.measuring.measure import Measured


def upload_artifacts(
    context: TrialContext,
    built: BuiltEngines,
    generation: GenerationEngines | None,
    measured: Measured,
    metrics: Mapping[str, float],
) -> None:
    """Offer the trial by its metrics, and upload what the service wants of it."""
    store = context.artifacts
    wanted = [] if store is None else store.wants(metrics)
    if store is None or not wanted:
        return
    context.request_model(SAVE, {"path": str(context.files.weights)}, context.limits.export_seconds)
    files = {"weights.safetensors": context.files.weights}
    if not context.rank_devices:
        # What devices share is made again of the weights and the configuration: it is for the devices at hand.
        files |= {"model.onnx": built.onnx, "model.engine": built.model.path}
        files |= {"loss.engine": built.loss.path} if built.loss is not None else {}
        files |= generation.files() if generation is not None else {}
    description = _description(context, measured, metrics, generation)
    trial = DownloadedTrial(
        trial=context.trial,
        dataset=description["dataset"]["name"],
        runtime=context.runtime,
        task=context.task,
        signature=context.signature,
        generation=None if generation is None else generation.config,
    )
    found = collect(context.files.artifacts, description, files, context.files.batches("validation"), trial)
    for name in wanted:
        if name in found:
            store.upload(name, found[name])


def _description(
    context: TrialContext, measured: Measured, metrics: Mapping[str, float], generation: GenerationEngines | None
) -> ArtifactDescription:
    dataset = context.dataset
    assert dataset is not None, "what has no data is no trial on a front"
    named = [(*split_name(name), value) for name, value in metrics.items()]
    return {
        "trial": context.trial,
        "runtime": context.runtime,
        "target": context.target_key,
        "configuration": context.configuration.document,
        "dataset": {"name": dataset.name, "sha256": dataset.sha256, "facts": dataset.facts},
        # The files are those of one shape, so that its figures need no name of it.
        "metrics": {**metrics, **{base: value for base, at, value in named if at == context.shape}},
        "environment": dict(measured.environment),
        "generation": None if generation is None else generation_plan(generation.config),
    }
