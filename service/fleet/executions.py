"""What each busy slot of a worker does: its trial, the phase, since when, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.json_columns import PhaseTime
from service.database.models import Attempt, Sweep, Trial
from service.fleet import busyness
from service.leases import schemas as lease_schemas

WAITING_FOR_CHARACTERS = 200
"""Of the words of a worker: longer ones are cut."""


def added_to(
    session: Session, workers: Sequence[lease_schemas.Worker], project: str | None
) -> list[lease_schemas.Worker]:
    """The workers with what they do for `project` (None: for all), and how busy those were that are alive.

    What runs for another project is left out, but for how many slots it takes.
    """
    executions = of_workers(session, workers, project)
    lately = busyness.of_workers(session, [worker.id for worker in workers if worker.alive])
    added: list[lease_schemas.Worker] = []
    for worker in workers:
        own = executions.get(worker.id, [])
        changes: dict[str, object] = {"executions": own}
        if project is not None:
            trials = [each.trial for each in own]
            changes |= {"trials": trials, "trial": trials[0] if trials else None}
        if worker.id in lately:
            changes["device_busy_share"] = round(lately[worker.id].device, 4)
            changes["slots_busy_share"] = round(lately[worker.id].slots, 4)
            changes["device_use"] = lately[worker.id].use
        added.append(worker.model_copy(update=changes))
    return added


def of_workers(
    session: Session, workers: Sequence[lease_schemas.Worker], project: str | None
) -> dict[str, list[lease_schemas.Execution]]:
    """Worker -> what its busy slots do, the oldest trial first, without what runs for another project."""
    executions: dict[str, list[lease_schemas.Execution]] = {}
    for row in _rows(session, [trial for worker in workers for trial in worker.trials], project):
        progress = row.progress or {}
        executions.setdefault(row.worker_id, []).append(
            lease_schemas.Execution(
                trial=row.id,
                sweep=row.sweep_id,
                sweep_name=row.sweep_name,
                number=row.number,
                attempt=row.attempt,
                phase=row.phase,
                since=_since(row.phases, row.started_at),
                wait_cause=_wait_cause(progress),
                waiting_for=_waiting_for(progress),
            )
        )
    return executions


def _rows(session: Session, trials: Sequence[str], project: str | None) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    query = (
        sa.select(
            Trial.id,
            Trial.worker_id,
            Trial.sweep_id,
            Sweep.name.label("sweep_name"),
            Trial.number,
            Trial.attempt,
            Trial.phase,
            Trial.progress,
            Attempt.phases,
            Attempt.started_at,
        )
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .join(Attempt, sa.and_(Attempt.trial_id == Trial.id, Attempt.attempt == Trial.attempt))
        .where(Trial.id.in_(trials))
        .order_by(Trial.id)
    )
    if project is not None:
        query = query.where(Trial.project == project)
    return session.execute(query).all()


def _since(phases: Sequence[PhaseTime], started_at: float) -> float:
    """When the phase began; before the first one, when the attempt did."""
    return phases[-1]["started_at"] if phases else started_at


def _wait_cause(progress: Mapping[str, object]) -> lease_schemas.WaitCause | None:
    """A worker may say anything, and an older one says words alone."""
    reported = progress.get("wait_cause")
    known = get_args(lease_schemas.WaitCause)
    return cast("lease_schemas.WaitCause", reported) if isinstance(reported, str) and reported in known else None


def _waiting_for(progress: Mapping[str, object]) -> str | None:
    reported = progress.get("waiting_for")
    return reported[:WAITING_FOR_CHARACTERS] if isinstance(reported, str) else None
