"""The page of workers: each device, and its current trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.database.models import Trial
from service.database.sessions import now
from service.fleet import executions, queue_by_needs
from service.fleet.schemas import QueueEntry
from service.leases import schemas as lease_schemas
from service.leases import workers
from service.sweeps.catalog import catalog
from service.sweeps.catalog.schemas import Target

PAGE_WORKERS = 200


@dataclass(frozen=True, slots=True)
class WorkersPage:
    now: float
    workers: list[lease_schemas.Worker]
    progress: dict[str, JsonObject]
    """Trial -> how far it is in its phase, if its worker says that."""
    targets: list[Target]
    queue: list[QueueEntry]


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
    shown = executions.added_to(session, items, project)
    return WorkersPage(
        now=now(session),
        workers=shown,
        progress=_progress(session, [each.trial for worker in shown for each in worker.executions]),
        targets=catalog.targets(session, project),
        queue=queue_by_needs.entries(session, project, alive_seconds),
    )


def _progress(session: Session, trials: Sequence[str]) -> dict[str, JsonObject]:
    rows = session.execute(select(Trial.id, Trial.progress).where(Trial.id.in_(trials)))
    return {trial: progress for trial, progress in rows if progress}
