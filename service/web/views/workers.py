"""The page of workers: each device, and its current trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.models import Sweep, Trial
from service.database.sessions import now
from service.fleet import busyness, queue_by_needs
from service.fleet.busyness import Busyness
from service.fleet.schemas import QueueEntry
from service.leases import schemas as lease_schemas
from service.leases import workers
from service.sweeps import catalog
from service.sweeps.catalog_schemas import Target

PAGE_WORKERS = 200


@dataclass(frozen=True, slots=True)
class Execution:
    """A worker's current trial."""

    trial: Trial
    sweep: Sweep


@dataclass(frozen=True, slots=True)
class WorkersPage:
    now: float
    workers: list[lease_schemas.Worker]
    running: dict[str, list[Execution]]
    """Worker -> the trials of its slots, the oldest trial first."""
    targets: list[Target]
    queue: list[QueueEntry]
    busyness: dict[str, Busyness]
    """Worker -> how busy it was lately, of those that are alive."""


def workers_page(session: Session, project: str | None, alive_seconds: float) -> WorkersPage:
    """The newest workers that serve a project (None: all), the trials that they execute, and their targets."""
    items, _ = workers.page(
        session,
        alive_seconds=alive_seconds,
        only_alive=False,
        page_size=PAGE_WORKERS,
        page_token=None,
        project=project,
    )
    return WorkersPage(
        now=now(session),
        workers=items,
        running=_running(session, items, project),
        targets=catalog.targets(session, project),
        queue=queue_by_needs.entries(session, project, alive_seconds),
        busyness=busyness.of_workers(session, [worker.id for worker in items if worker.alive]),
    )


def _running(
    session: Session, items: Sequence[lease_schemas.Worker], project: str | None
) -> dict[str, list[Execution]]:
    """Worker -> its trials and their sweeps. What runs for another project is not shown to this one."""
    query = (
        select(Trial, Sweep)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(Trial.id.in_([trial for worker in items for trial in worker.trials]))
        .order_by(Trial.id)
    )
    if project is not None:
        query = query.where(Trial.project == project)
    running: dict[str, list[Execution]] = {}
    for trial, sweep in session.execute(query):
        running.setdefault(str(trial.worker_id), []).append(Execution(trial, sweep))
    return running
