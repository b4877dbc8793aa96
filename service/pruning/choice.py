"""Whether a sweep's trainings may be stopped before their end, by which pruner, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layers.metrics import metric
from layers.space.document import SweepDocument
from layers.space.document_fields import Objective
from service.errors import InvalidDocumentError, Problem
from service.leases.phases import is_hardware_first

NONE, PARETO, ASHA = "none", "pareto", "asha"

LEAST_TRIALS = 40
"""Trials of a budget from which on `auto` prunes: the first ones that finish are what predictions are fitted to."""

_MEASURED_AFTERWARDS = (
    "latency and memory are measured after the training; search.hardware_first: always would measure them before"
)


@dataclass(frozen=True, slots=True)
class PrunerChoice:
    """A pruner by its name in a sweep document, and the reason in words."""

    pruner: str
    reason: str


def choose_pruner(document: SweepDocument, sampler: str) -> PrunerChoice:
    """The pruner of a sweep: the one it names, or what `auto` means for it.

    Raises InvalidDocumentError if the one that it names cannot judge its trainings.
    """
    named = document.search.get("pruner", "auto")
    if named == NONE:
        return PrunerChoice(NONE, "the document asks for none")
    obstacle = _obstacle(document)
    if named == "auto":
        return PrunerChoice(NONE, obstacle) if obstacle else _automatic(document, sampler)
    if obstacle is not None:
        problem = Problem("/search/pruner", f"{named} cannot prune here: {obstacle}", "leave it out, or give none")
        raise InvalidDocumentError(f"/search/pruner: {problem.detail}", problems=[problem])
    return PrunerChoice(named, f"the document asks for {named}")


def objective_of_training(objectives: Sequence[Objective]) -> Objective | None:
    """The objective that only the training decides; None if there is not exactly one."""
    found = [each for each in objectives if metric(each["metric"]).stage == "quality"]
    return found[0] if len(found) == 1 else None


def _automatic(document: SweepDocument, sampler: str) -> PrunerChoice:
    trials = document.budget["trials"]
    if trials < LEAST_TRIALS:
        return PrunerChoice(NONE, f"{trials} trials are too few to learn from: pruning begins to pay at {LEAST_TRIALS}")
    if sampler == "grid":
        return PrunerChoice(NONE, "the budget covers the whole space: each point is trained to its end")
    return PrunerChoice(PARETO, f"in {trials} trials, trainings that cannot reach the front are worth stopping")


def _obstacle(document: SweepDocument) -> str | None:
    """Why trainings of the sweep cannot be judged before their end; None if they can."""
    if document.task == "probe":
        return "a probe trains nothing"
    if any(entry.name == "training.seconds" for entry in document.space.entries):
        return "a training with a budget in seconds has no steps at which to judge it"
    if objective_of_training(document.objectives) is None:
        return "exactly one objective has to be decided by the training"
    if not any(metric(each["metric"]).stage == "hardware" for each in document.objectives):
        return None
    is_known = is_hardware_first(
        document.task,
        document.search["hardware_first"],
        tuple(constraint.text for constraint in document.constraints),
        document.search.get("pruner"),
        tuple(each["metric"] for each in document.objectives),
    )
    return None if is_known else _MEASURED_AFTERWARDS
