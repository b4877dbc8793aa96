"""What several pages show of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.database.models import Dataset, Sweep
from service.leases.phases import Phase, is_hardware_first, order_of
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
    # Profiles of before have -0.0 if a model is always right.
    return {name: loss + 0.0 for name, loss in known.items()}


def phases_ahead(row: Sweep, entered: Sequence[str], *, is_predicted: bool) -> tuple[Phase, ...]:
    """The phases of a trial whose attempt has entered some of them. `is_predicted`: its hardware is, so that its lease
    asks for no build before the training."""
    search, constraints = row.document.get("search", {}), tuple(row.document.get("constraints", ()))
    objectives = tuple(each["metric"] for each in row.objectives)
    wish, pruner = search.get("hardware_first"), search.get("pruner")
    hardware_first = is_hardware_first(row.task, wish, constraints, pruner, objectives)
    return order_of(entered, hardware_first=hardware_first and not is_predicted)


def dataset_of(session: Session, row: Sweep) -> Dataset | None:
    return session.get(Dataset, row.dataset_id) if row.dataset_id else None
