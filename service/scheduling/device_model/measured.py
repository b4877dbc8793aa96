"""The measured trials of a target, as a model of its device learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layers.declarations.inference.shapes import shapes_of
from layers.metrics import METRICS, MODELLED, STATIC, named_at
from layers.results_version import UNSAID
from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.scheduling.device_model.features import describe

MOST_ROWS = 200
"""Measured trials that a model rests on, the newest first: more make no better one, and fitting takes their cube."""
FEWEST_ROWS = 16
"""Below which a model says nothing."""


@dataclass(frozen=True, slots=True)
class MeasuredTrial:
    """A trial whose engine was measured."""

    id: str
    described: Mapping[str, float]
    metrics: Mapping[str, float]

    @property
    def shows_hardware(self) -> bool:
        """Whether any modelled quantity was measured."""
        return any(metric in self.metrics for metric in MODELLED)


def measured_trials(
    session: Session, target_key: str, *, project: str, task: str | None = None, other_than: str | None = None
) -> list[MeasuredTrial]:
    """The newest measured trials of the target in the project, of its newest `RESULTS_VERSION`, the oldest first.

    `other_than`: a sweep whose own do not count.
    """
    version = sa.func.coalesce(Sweep.target["results_version"].as_integer(), UNSAID)
    query = (
        sa.select(Trial.id, Trial.configuration, Trial.metrics, version)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(
            Trial.target_key == target_key,
            Trial.project == project,
            Trial.state.in_((TrialState.COMPLETE, TrialState.INFEASIBLE)),
            Trial.reused_from.is_(None),
            Trial.replicate_of.is_(None),
        )
        .order_by(Trial.id.desc())
        .limit(MOST_ROWS)
    )
    if other_than is not None:
        query = query.where(Sweep.id != other_than)
    if task is not None:
        query = query.where(Sweep.task == task)
    rows = [
        (row[3], measured(row[0], configuration, metrics))
        for row in session.execute(query)
        for _, configuration, metrics in at_shapes(row[1], row[2])
        if "latency_ms_p50" in metrics
    ][:MOST_ROWS]
    newest = rows[0][0] if rows else UNSAID
    return [trial for version, trial in reversed(rows) if version == newest]


AtShape = tuple[str | None, Configuration, Mapping[str, float]]
"""A shape's name, and a configuration and its metrics there, named without the shape."""


def at_shapes(configuration: Configuration, metrics: Mapping[str, float]) -> list[AtShape]:
    """A trial at each of its shapes, as if it had been measured there alone; itself if its sweep names none.

    What its shapes have together, the time of their builds, is of none of them.
    """
    shapes = shapes_of(configuration.get("shapes", []))
    if not shapes:
        return [(None, configuration, metrics)]
    found: list[AtShape] = []
    for shape in shapes:
        at: Configuration = {**configuration, "inference": shape.section(configuration["inference"])}
        of_shape = {base: metrics[full] for base in METRICS if (full := named_at(base, shape.name)) in metrics}
        found.append((shape.name, at, {name: value for name, value in of_shape.items() if name != "build_seconds"}))
    return found


def newest_target(session: Session, *, project: str, task: str, runtime: str | None) -> str | None:
    """The target on which a trial of the task was measured last."""
    query = (
        sa.select(Trial.target_key)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(Trial.project == project, Sweep.task == task, Trial.state == TrialState.COMPLETE)
        .order_by(Trial.id.desc())
        .limit(1)
    )
    if runtime is not None:
        query = query.where(Sweep.target["runtime"].as_string() == runtime)
    return session.scalar(query)


def measured(trial_id: str, configuration: Configuration, metrics: Mapping[str, float]) -> MeasuredTrial:
    """A trial as a model sees it."""
    static = {name: metrics[name] for name in STATIC if name in metrics}
    return MeasuredTrial(trial_id, describe(configuration, static), metrics)


def with_metric(trials: Sequence[MeasuredTrial], metric: str) -> list[MeasuredTrial]:
    """Those that have a value above 0 of it."""
    return [trial for trial in trials if trial.metrics.get(metric, 0.0) > 0]
