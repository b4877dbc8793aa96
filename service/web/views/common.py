"""What several pages show of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.database.models import Dataset, Sweep
from service.leases.phases import is_hardware_first
from service.results import charts

Fact: TypeAlias = bool | int | float | str | None
"""A value of a measurement as a page shows it."""

BAR_STATES = ("complete", "infeasible", "pruned", "failed", "cancelled", "running", "queued")
"""Trials by state, in the order in which the progress bar shows them."""


def target_words(row: Sweep) -> str | None:
    """Runtime, version and device of a sweep's target; None until it is resolved."""
    if row.target is None:
        return None
    return f"{row.target['runtime']} {row.target['version']} on {row.target['device_model']}"


def ended_trials(row: Sweep) -> int:
    """How many trials came to an end, whichever."""
    return sum(int(row.counts.get(state, 0)) for state in BAR_STATES[:5])


def progress_bar(row: Sweep) -> list[charts.Segment]:
    """Trials by state against the budget."""
    counts = {state: float(row.counts.get(state, 0)) for state in BAR_STATES}
    return charts.segments(counts, float(row.budget.get("trials", 0)))


def flat(data: JsonObject, prefix: str = "") -> dict[str, Fact]:
    """A measurement's values by dotted name; long lists are only counted."""
    found: dict[str, Fact] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            short = len(value) <= 8 and all(not isinstance(each, list | dict) for each in value)
            found[prefix + name] = ", ".join(map(str, value)) if short else f"{len(value):,} values"
        else:
            found[prefix + name] = value
    return found


def baselines_nats(dataset: Dataset | None) -> Mapping[str, float]:
    """The losses of simple models that a dataset's profile knows."""
    known: Mapping[str, float] = {} if dataset is None else dataset.profile.get("baselines_nats", {})
    # Profiles of before have -0.0 where a model is always right.
    return {name: loss + 0.0 for name, loss in known.items()}


def hardware_first_of(row: Sweep) -> bool:
    """Whether the leases of a sweep ask for its trials to be measured before they are trained."""
    search, constraints = row.document.get("search", {}), tuple(row.document.get("constraints", ()))
    objectives = tuple(each["metric"] for each in row.objectives)
    return is_hardware_first(row.task, search.get("hardware_first"), constraints, search.get("pruner"), objectives)


def dataset_of(session: Session, row: Sweep) -> Dataset | None:
    return session.get(Dataset, row.dataset_id) if row.dataset_id else None
