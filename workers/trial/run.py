"""The order of work in one attempt.

Hardware first: check → build → measure → train → (quantize →) rebuild → remeasure → evaluate; a model that breaks a
hardware constraint is never trained. Training first: check → train → (quantize →) build → measure → evaluate; one
export, one build, one measurement. A probe, which has no data and learns nothing: check → build → measure.

An engine is loaded and measured by one request, as both may need the device alone. It is then compared with PyTorch
before any figure is kept.

If a sweep names several shapes, each has its own engine, built, measured and compared at that shape. The engine of the
first shape scores the validation split.

An error that would recur ends the trial here, as a `Finish` with its reason. Others are raised: the cause of an
interruption, a child killed from outside (ChildDiedError), a service that is away for too long (UnreachableError).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workers.data.batches import DataError
from workers.data.splits import TrialData
from workers.interruption import TrialPrunedError
from workers.processes.child import ChildDiedError, ChildError, ChildRequestError, ChildTimeoutError
from workers.service.client import RefusedError
from workers.trial.build import BuiltEngines, build, export, exported_again, prepare_model
from workers.trial.check import check_model, fetch_data, lay_out_batches, lay_out_probe_inputs
from workers.trial.context import TrialContext
from workers.trial.evaluate import evaluate
from workers.trial.generation.engines import GenerationEngines, build_generation
from workers.trial.generation.measure import MeasuredGeneration, measure_generation
from workers.trial.load import LoadedEngine, computes_the_same, load
from workers.trial.measuring.measure import MEASURE, REMEASURE, judge_hardware, measure
from workers.trial.outcomes import Finish, OutOfMemoryError, TrialEndedError
from workers.trial.record import TrialRecord
from workers.trial.train import judge_training, train
from workers.trial.upload import upload_artifacts

logger = logging.getLogger("layersweep.worker")

CRASHES_AT_MOST = 2
"""A child that crashes by itself this often in one attempt would do so again."""

_KINDS = {
    "build": "the engine cannot be built",
    "out_of_memory": "out of memory",
    "unsupported": "not supported by the target",
    "invalid": "invalid",
    "internal": "internal error",
}


def run_trial(context: TrialContext) -> Finish:
    """Execute one attempt once the device has room for it.

    If a child crashes once, it and the attempt are started again. An attempt that runs out of memory beside others is
    tried again alone.

    Raises InterruptionError (LeaseLostError, TrialCancelledError, DrainedError), ChildDiedError if a child was killed
    from outside, UnreachableError.
    """
    crashes = 0
    while True:
        attempt = replace(context, record=TrialRecord())
        try:
            with context.memory.held(lambda: context.waits.begin("memory"), context.waits.end):
                ended = _ended(attempt)
        except ChildDiedError as death:
            crashes += 1
            context.children.kill()
            if death.killed_from_outside:
                raise
            if crashes < CRASHES_AT_MOST:
                context.lease.log(f"{death}; trying once more\n{death.tail}")
                logger.warning("trial %s: %s; trying once more", context.trial, death)
                continue
            ended = TrialEndedError("failed", f"{death}, {crashes} times: {_last_line(death.tail)}", death.tail)
        if isinstance(ended, OutOfMemoryError) and context.memory.has_had_neighbours:
            context.children.kill()
            context.memory.is_alone = True
            context.lease.log(f"{ended.reason}; trying again without other trials on the device")
            logger.warning("trial %s: %s; trying again without neighbours", context.trial, ended.reason)
            continue
        # A model that devices share has all of them to itself.
        devices = max(1, len(set(context.rank_devices)))
        attempt.record.add_metrics({"device_seconds": context.share.seconds * devices})
        if waits := context.waits.seconds:
            attempt.record.set_measurement("waits", waits)
        return attempt.record.finish(ended)


def _ended(context: TrialContext) -> TrialEndedError | None:
    """Work through the steps. Returns why the trial ended early, None if it did not. Raises ChildDiedError."""
    try:
        if context.is_probe:
            _run_probe(context)
        else:
            _run_model(context)
    except TrialEndedError as end:
        return end
    except TrialPrunedError as cause:
        return TrialEndedError("pruned", str(cause))
    except ChildDiedError:
        raise
    except ChildError as failure:
        return _ended_by_child(context, failure)
    except DataError as error:
        return TrialEndedError("failed", str(error))
    except RefusedError as refusal:
        return TrialEndedError("failed", f"the service refused what the trial needs: {refusal}")
    except MemoryError as error:
        return OutOfMemoryError("failed", f"{_KINDS['out_of_memory']}: {str(error) or 'of the worker itself'}")
    return None


def _ended_by_child(context: TrialContext, failure: ChildError) -> TrialEndedError:
    match failure:
        case ChildTimeoutError():
            return TrialEndedError("failed", f"{failure}: it hung and was ended", failure.tail)
        case ChildRequestError():
            if failure.kind in ("internal", "out_of_memory"):
                context.children.discard_model()
                context.children.discard_builder()
            kind = OutOfMemoryError if failure.kind == "out_of_memory" else TrialEndedError
            return kind("failed", f"{_KINDS.get(failure.kind, failure.kind)}: {failure.message}", failure.tail)
        case _:
            raise failure


def _run_probe(context: TrialContext) -> None:
    with context.phase("check"):
        check_model(context)
    lay_out_probe_inputs(context)

    with context.phase("build"):
        engines = _build_untrained(context, "final")

    with context.phase("measure"):
        _measure_and_judge(context, engines, REMEASURE, "latency_samples_ms")
    context.children.close_engine()


def _run_model(context: TrialContext) -> None:
    with context.phase("check"):
        check_model(context)
        data = fetch_data(context)
    lay_out_batches(context, data)

    if context.hardware_first:
        _judge_untrained(context)
        _train(context, data)
        _finish_trained(context, data, build_phase="rebuild", measure_phase="remeasure")
    else:
        prepare_model(context)
        _train(context, data)
        _finish_trained(context, data, build_phase="build", measure_phase="measure")


def _judge_untrained(context: TrialContext) -> None:
    """Build and measure the untrained model, so that one that is too slow or too large is not trained."""
    with context.phase("build"):
        untrained = _build_untrained(context, "first")
    with context.phase("measure"):
        _measure_and_judge(context, untrained, MEASURE, "latency_first")
    if context.rungs:
        findings = context.record.findings()
        context.lease.metrics(findings.metrics, findings.noise)


def _train(context: TrialContext, data: TrialData) -> None:
    with context.phase("train"):
        trained = train(context, data)
    judge_training(context, trained)


@dataclass(frozen=True, slots=True)
class _ShapeEngines:
    """The engines at one shape."""

    context: TrialContext
    built: BuiltEngines
    generation: GenerationEngines | None

    @classmethod
    def of(
        cls, context: TrialContext, built: BuiltEngines, name: str, transplant: Literal["prepare", "use"] | None
    ) -> _ShapeEngines:
        """The built engines, with those that generate text if the trial generates any."""
        return cls(context, built, build_generation(context, name, transplant))


def _build_untrained(context: TrialContext, name: str) -> list[_ShapeEngines]:
    """Random weights → ONNX → engine, at each shape."""
    prepare_model(context)
    context.children.start_engine(context.runtime, context.turns)
    # A probe is exported only once, and a quantized model quantizes other products each time.
    again = None if context.is_probe or context.is_quantized else "prepare"
    return [
        _ShapeEngines.of(shape, build(shape, export(shape, name, again)), name, again) for shape in context.at_shapes()
    ]


def _measure_and_judge(
    context: TrialContext, engines: Sequence[_ShapeEngines], options: Mapping[str, float], measurement: str
) -> None:
    """Measure one shape after the other until a constraint is broken."""
    for shape in engines:
        shape.context.record.set_measurement(measurement, measure(shape.context, shape.built, options).latency)
        _record_generation(shape.context, _measured_generation(shape, options))
        judge_hardware(context, context.record.findings())


def _measured_generation(shape: _ShapeEngines, options: Mapping[str, float]) -> MeasuredGeneration | None:
    return shape.generation and measure_generation(shape.context, shape.generation, options)


def _load_unmeasured(context: TrialContext, built: BuiltEngines) -> LoadedEngine:
    """Load an engine and compare it with PyTorch. Raises TrialEndedError if it computes another function."""
    engine = load(context, built)
    return engine if computes_the_same(context, engine) else _load_unmeasured(context, exported_again(context, built))


def _build_trained(context: TrialContext, phase: str) -> list[_ShapeEngines]:
    """Build the trained model's engine at each shape. Quantizing takes long enough to be a phase of its own."""
    context.children.start_engine(context.runtime, context.turns)
    # A trial that is not measured needs only the engine that scores.
    shapes = context.at_shapes() if context.measures else context.at_shapes()[:1]
    if not context.is_quantized:
        with context.phase(phase):
            return [
                _ShapeEngines.of(shape, build(shape, export(shape, "final", "use")), "final", "use") for shape in shapes
            ]
    with context.phase("quantize"):
        graphs = [(shape, export(shape, "final")) for shape in shapes]
    with context.phase(phase):
        # Quantized models generate no text.
        return [_ShapeEngines(shape, build(shape, exported), None) for shape, exported in graphs]


def _finish_trained(context: TrialContext, data: TrialData, *, build_phase: str, measure_phase: str) -> None:
    """Build, measure and score the trained model: these are the figures that the trial reports."""
    scored, *others = _build_trained(context, build_phase)
    if not context.measures:
        with context.phase("evaluate"):
            evaluate(scored.context, _load_unmeasured(scored.context, scored.built), data)
        context.children.close_engine()
        return
    with context.phase(measure_phase):
        for shape in others:
            latency = measure(shape.context, shape.built, REMEASURE).latency
            shape.context.record.set_measurement("latency_samples_ms", latency)
            _record_generation(shape.context, _measured_generation(shape, REMEASURE))
        # The scored shape is measured last, because its engine must still be loaded for the evaluation.
        generated = _measured_generation(scored, REMEASURE)
        measured = measure(scored.context, scored.built, REMEASURE)
    engine = measured.engine
    scored.context.record.set_measurement("latency_samples_ms", measured.latency)
    _record_generation(scored.context, generated)

    with context.phase("evaluate"):
        evaluate(scored.context, engine, data)
    context.children.close_engine()

    upload_artifacts(scored.context, engine.built, scored.generation, measured, context.record.findings().metrics)


def _record_generation(context: TrialContext, generated: MeasuredGeneration | None) -> None:
    """Record the figures of generation, if there are any. The memory that generation needs becomes the trial's."""
    if generated is not None:
        context.record.add_metrics(generated.metrics)
        context.record.set_measurement("generation", generated.measurement)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
