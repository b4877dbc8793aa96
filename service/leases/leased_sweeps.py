"""What a lease says of its sweep, and what a finish is judged by. It never changes once the sweep has a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.constraints import parse_constraint
from layers.expressions.metric_names import MetricNames
from layers.space.document_fields import Objective
from service.common.states import SweepKind
from service.database.constant_rows import ConstantRows
from service.database.models import Dataset, Sweep
from service.leases import phases
from service.leases import schemas as lease_schemas

_MOST = 1024


@dataclass(frozen=True, slots=True)
class LeasedSweep:
    """A sweep that has trials."""

    runtime: lease_schemas.Runtime
    kind: SweepKind
    objectives: Sequence[Objective]
    constraints: tuple[str, ...]
    hardware_first: bool
    prunes: bool
    """Whether trainings of it may be stopped before their end."""
    metrics_of_objectives: list[str]
    metrics_in_use: list[str]
    """Those of its objectives and constraints, each once."""
    metric_names: MetricNames
    dataset: lease_schemas.LeaseDataset | None


def get(session: Session, sweep_id: str) -> LeasedSweep:
    """The sweep of a trial."""
    found = _SWEEPS.get(session.connection(), sweep_id)
    assert found is not None, "a trial has a sweep, and a sweep with trials a target"
    return found


def _read(connection: sa.Connection, sweep_id: str) -> LeasedSweep | None:
    row = connection.execute(
        sa.select(
            Sweep.target,
            Sweep.sampler,
            Sweep.pruner,
            Sweep.task,
            Sweep.objectives,
            Sweep.document,
            Dataset.id,
            Dataset.name,
            Dataset.task.label("dataset_task"),
            Dataset.sha256,
            Dataset.facts,
            Dataset.parts,
        )
        .join(Dataset, Dataset.id == Sweep.dataset_id, isouter=True)
        .where(Sweep.id == sweep_id)
    ).one_or_none()
    if row is None or row.target is None:
        return None
    constraints = tuple(row.document.get("constraints") or ())
    search = row.document.get("search", {})
    kind = SweepKind.of(row.sampler)
    of_objectives = list(dict.fromkeys(each["metric"] for each in row.objectives))
    of_constraints = [metric for text in constraints for metric in parse_constraint(text).metrics]
    return LeasedSweep(
        runtime=row.target["runtime"],
        kind=kind,
        objectives=row.objectives,
        constraints=constraints,
        hardware_first=phases.is_hardware_first(
            row.task, search.get("hardware_first"), constraints, search.get("pruner"), tuple(of_objectives)
        ),
        prunes=row.pruner != "none",
        metrics_of_objectives=of_objectives,
        metrics_in_use=list(dict.fromkeys([*of_objectives, *of_constraints])),
        metric_names=MetricNames.of(row.document),
        dataset=None if row.id is None else _dataset(row, kind),
    )


def _dataset(row: sa.Row[*tuple[Any, ...]], kind: SweepKind) -> lease_schemas.LeaseDataset:
    splits = row.parts
    if kind is SweepKind.SEARCH:
        splits = {name: split for name, split in splits.items() if name != "test"}
    return lease_schemas.LeaseDataset(
        id=row.id, name=row.name, task=row.dataset_task, sha256=row.sha256, facts=row.facts, parts=splits
    )


_SWEEPS = ConstantRows(_read, _MOST)
