"""Trials as the runs of an experiment tracker: what MLflow and Weights & Biases share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any

from layersweep.errors import MissingDependencyError
from layersweep.records.sweeps import ENDED_TRIAL_STATES, Scalar, TrialRecord
from layersweep.sweep import Sweep


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One trial that has ended."""

    trial: TrialRecord
    name: str
    parameters: dict[str, Scalar]
    tags: dict[str, str]

    @property
    def metrics(self) -> dict[str, float]:
        return self.trial["metrics"]

    @property
    def started_ms(self) -> int:
        """Milliseconds since the epoch; of a trial that was answered from an earlier one, when it was made."""
        return _milliseconds(self.trial["started_at"] or self.trial["created_at"])

    @property
    def ended_ms(self) -> int:
        return _milliseconds(self.trial["ended_at"] or self.trial["created_at"])


def finished_runs(sweep: Sweep) -> Iterator[FinishedRun]:
    """The trials of a sweep that have ended, in the order of their numbers."""
    record = sweep.refresh().record
    target = record["target"] or ""
    for trial in sweep.trials():
        if trial["state"] not in ENDED_TRIAL_STATES:
            continue
        facts = {
            "sweep": sweep.id,
            "sweep_name": sweep.name,
            "trial": trial["id"],
            "number": trial["number"],
            "state": trial["state"],
            "rank": trial["rank"],
            "on_front": trial["on_front"],
            "feasible": trial["feasible"],
            "reason": trial["reason"],
            "target": target,
        }
        yield FinishedRun(
            trial,
            f"{sweep.name}/{trial['number']}",
            {name: value for name, value in trial["parameters"].items() if value is not None},
            {f"layersweep.{name}": str(value) for name, value in facts.items() if value not in (None, "")},
        )


def needed(module: str, extra: str) -> Any:
    """A tracker's library. Raises MissingDependencyError if it is not installed."""
    try:
        return import_module(module)
    except ImportError as problem:
        raise MissingDependencyError(
            f"an export to {extra} needs {module}, which is not installed: pip install 'layersweep[{extra}]'"
        ) from problem


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)
