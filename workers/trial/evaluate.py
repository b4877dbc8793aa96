"""How good the trained engine is: its loss, beside the loss of the model it was built from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.data.splits import TrialData, load_split
from workers.engine.verbs import LOSS
from workers.processes.model_verbs import EVALUATE
from workers.service.leased_trial import LeasedSplit
from workers.trial.build import write_graph
from workers.trial.context import TrialContext
from workers.trial.load import LoadedEngine
from workers.trial.other_targets import try_builds
from workers.trial.outcomes import TrialEndedError


@dataclass(frozen=True, slots=True)
class SplitLoss:
    """The engine's loss on a split, as sums over all targets and over consecutive blocks of the split."""

    loss_sum: float
    weight_sum: float
    correct: float
    blocks: Mapping[str, list[float]]
    """The sums by block, from which the service computes how certain the mean is."""

    @property
    def mean(self) -> float:
        """Nats per target."""
        return self.loss_sum / self.weight_sum

    @property
    def accuracy(self) -> float:
        return self.correct / self.weight_sum


def evaluate(context: TrialContext, engine: LoadedEngine, data: TrialData) -> None:
    """Record the losses of the engine and of the reference, which is scored on as many training examples as well."""
    validation = _validation_loss(context, engine, data)
    context.record.add_metrics(_of_task(context, validation))
    if _test_split(context) is not None:
        _score_test_split(context, engine, data)
        _try_other_targets(context)


def _validation_loss(context: TrialContext, engine: LoadedEngine, data: TrialData) -> SplitLoss:
    files, limit = context.files, context.limits.evaluate_seconds
    validation = _engine_loss(context, engine, files.batches("validation"))
    reference = context.request_model(EVALUATE, {"batches": str(files.batches("validation"))}, limit)
    sample = data.training().evaluation(context.batch_size, at_most=len(data.validation()))
    sample.save(files.batches("training"))
    fitted = context.request_model(EVALUATE, {"batches": str(files.batches("training"))}, limit)
    context.record.set_measurement("loss_blocks", {"validation": validation.blocks})
    context.record.add_metrics(
        {
            "validation_loss": validation.mean,
            "reference_loss": reference["loss"],
            "precision_gap": validation.mean - reference["loss"],
            "training_loss": fitted["loss"],
            "generalization_gap": reference["loss"] - fitted["loss"],
        }
    )
    return validation


def _of_task(context: TrialContext, validation: SplitLoss) -> dict[str, float]:
    """The quality metric that a task has besides its loss."""
    if context.task != "causal_lm":
        return {"accuracy": validation.accuracy}
    bytes_per_token = None if context.dataset is None else context.dataset.bytes_per_token
    return {} if bytes_per_token is None else {"bits_per_byte": validation.mean / math.log(2) / bytes_per_token}


def _test_split(context: TrialContext) -> LeasedSplit | None:
    """The test split, which no sweep sees: only the lease of a confirmation names it."""
    return context.dataset.splits.get("test") if context.dataset is not None else None


def _score_test_split(context: TrialContext, engine: LoadedEngine, data: TrialData) -> None:
    path, store, named = context.files.test_split, context.artifacts, _test_split(context)
    if store is None or named is None or store.test_split(path) != named.sha256:
        raise TrialEndedError("failed", "the test split did not come as the lease names it")
    batches = context.files.batches("test")
    load_split(path, data.task, data.form).evaluation(context.batch_size).save(batches)
    test = _engine_loss(context, engine, batches)
    context.record.add_metrics({"test_loss": test.mean})
    context.record.extend_measurement("loss_blocks", {"test": test.blocks})


def _try_other_targets(context: TrialContext) -> None:
    """Record whether the trained model builds for other targets: a confirmation reports it."""
    if context.rank_devices:
        return
    builds = try_builds(
        context.request_builder, context.files.folder, lambda path, opset: write_graph(context, path, opset)
    )
    if builds:
        context.record.set_measurement("builds", builds)


def _engine_loss(context: TrialContext, engine: LoadedEngine, batches: Path) -> SplitLoss:
    sums = context.request(
        engine.process,
        LOSS,
        {"loss_graph": str(context.files.engine("loss")), "batches": str(batches)},
        silence_seconds=context.limits.silence_seconds,
        on_progress=lambda progress: context.lease.progress(**progress),
    )
    blocks = {"loss_sums": sums["block_loss_sums"], "weight_sums": sums["block_weight_sums"]}
    return SplitLoss(sums["loss_sum"], sums["weight_sum"], sums["correct"], blocks)
