"""Training, by the torch child: its curve goes to the service, its outcome is judged here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from workers.data.splits import TrialData
from workers.devices.memory_estimate import PROCESS_BYTES
from workers.engine.protocol import JsonObject
from workers.interruption import TrialPrunedError
from workers.processes.model_verbs import TRAIN
from workers.trial.artifacts import TRAINING_STATE
from workers.trial.context import TrialContext
from workers.trial.outcomes import TrialEndedError


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended: at its budget, by patience, or for a reason that ends the trial."""

    steps: int
    stopped: str
    reason: str | None


def train(context: TrialContext, data: TrialData) -> Trained:
    """Train the model that the torch child holds, resuming where a pruner stopped it if that state is kept.

    Raises the interruption's cause. If the trial is pruned, the state of its training is uploaded first.
    """
    context.children.close_engine()
    ahead = deque(context.rungs)
    earlier = _earlier_training(context)
    answer = context.request(
        context.children.prepared_model(),
        TRAIN,
        {
            **{name: str(path) for name, path in data.paths.items()},
            "specials": dict(data.form.specials),
            "state": str(context.files.stopped_training),
            **({} if earlier is None else {"resume": str(earlier)}),
        },
        silence_seconds=context.limits.silence_seconds,
        on_progress=lambda progress: _report(context, progress, ahead),
        stops_for=TrialPrunedError,
    )
    if "device_memory_bytes" in answer:
        context.memory.learn(PROCESS_BYTES + answer.pop("device_memory_bytes"))
    context.record.add_metrics({"train_seconds": answer["seconds"]})
    context.record.set_measurement("training", answer)
    if answer["stopped"] == "asked":
        _keep_state(context)
        context.interruption.check()
    return Trained(answer["steps"], answer["stopped"], answer["reason"])


def _earlier_training(context: TrialContext) -> Path | None:
    """The file of the state at which a pruner stopped the training; None if it starts from the beginning."""
    digest, path = context.training_state, context.files.earlier_training
    if digest is None or context.artifacts is None or not context.artifacts.training_state(digest, path):
        return None
    context.lease.log("the training goes on where it was stopped")
    return path


def _keep_state(context: TrialContext) -> None:
    """Upload the state of a stopped training, if the service wants it."""
    cause = context.interruption.cause
    if context.artifacts is not None and isinstance(cause, TrialPrunedError) and cause.keeps_state:
        context.artifacts.upload(TRAINING_STATE, context.files.stopped_training)


def judge_training(context: TrialContext, trained: Trained) -> None:
    """Raise TrialEndedError if the training diverged or is no longer finite."""
    if trained.reason:
        context.lease.log(f"step {trained.steps}: {trained.reason}")
    if trained.stopped == "diverged":
        raise TrialEndedError("pruned", str(trained.reason))
    if trained.stopped == "non_finite":
        raise TrialEndedError("failed", str(trained.reason))


def _report(context: TrialContext, progress: JsonObject, ahead: deque[int]) -> None:
    """Report a point of the curve, or only progress. At a rung, send it at once, as the service judges there."""
    is_point = "learning_rate" in progress
    fraction = min(1.0, progress.pop("fraction"))
    context.lease.progress(
        progress if is_point else None,
        step=progress["step"],
        fraction=round(fraction, 4),
    )
    if is_point and ahead and progress["step"] >= ahead[0]:
        while ahead and progress["step"] >= ahead[0]:
            ahead.popleft()
        context.lease.send_now()
