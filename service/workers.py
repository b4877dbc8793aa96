"""Workers: who registered, with which targets, and who is alive."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service import schemas
from service.db import announce, now
from service.errors import NotFound, Problem, Unprocessable
from service.ids import new_id
from service.models import Trial, Worker
from service.notifications import SCHEDULER
from service.paging import decode_token, encode_token


def target_key(capabilities: schemas.Capabilities) -> str:
    """What makes scores comparable: the runtime, its version and the device's model."""
    return f"{capabilities.runtime} {capabilities.version} on {capabilities.device_model}"


def register(session: Session, registration: schemas.WorkerRegistration, project: str | None = None) -> Worker:
    """Store a worker of a project (None: of all) under a new id. A process that starts again is another worker."""
    targets = [{**target.model_dump(), "key": target_key(target)} for target in registration.targets]
    keys = [target["key"] for target in targets]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            problem = Problem(f"/targets/{position}", f"{key} is there twice", "name each target once")
            raise Unprocessable(f"the target {key} is there twice", problems=[problem])
    time = now(session)
    worker = Worker(
        id=new_id(),
        project=project,
        name=registration.name,
        device=registration.device.model_dump(),
        device_uuid=registration.device.uuid,
        targets=targets,
        versions=dict(registration.versions),
        registered_at=time,
        last_seen_at=time,
    )
    session.add(worker)
    session.flush()
    # Sweeps that wait for a target may have found one.
    announce(session, SCHEDULER)
    return worker


def alive_since(session: Session, alive_seconds: float) -> float:
    """The time at which a worker must have been heard of to be alive."""
    return now(session) - alive_seconds


def page(
    session: Session,
    *,
    alive_seconds: float,
    only_alive: bool,
    page_size: int,
    page_token: str | None,
    project: str | None = None,
) -> tuple[list[schemas.Worker], str | None]:
    """Return the workers that serve a project (None: all), the newest first, and the token of the next page."""
    since = alive_since(session, alive_seconds)
    statement = sa.select(Worker).where(serves(project))
    if only_alive:
        statement = statement.where(Worker.last_seen_at >= since)
    if page_token is not None:
        (before,) = decode_token(page_token, str)
        statement = statement.where(Worker.id < before)
    rows = list(session.scalars(statement.order_by(Worker.id.desc()).limit(page_size + 1)))
    more = len(rows) > page_size
    rows = rows[:page_size]
    running = _running(session, [row.id for row in rows])
    items = [_to_schema(row, running.get(row.id), row.last_seen_at >= since) for row in rows]
    return items, encode_token(rows[-1].id) if more else None


def serves(project: str | None) -> sa.ColumnElement[bool]:
    """Workers that claim trials of the project; None: every worker."""
    if project is None:
        return sa.true()
    return sa.or_(Worker.project.is_(None), Worker.project == project)


def check_reach(session: Session, worker_id: str, project: str | None) -> None:
    """Raise NotFound where the worker is not one of `project` (None: of any)."""
    worker = session.get(Worker, worker_id)
    if worker is None or (project is not None and worker.project != project):
        raise NotFound(f"there is no worker {worker_id}: register again")


def _running(session: Session, worker_ids: list[str]) -> dict[str, str]:
    rows = session.execute(
        sa.select(Trial.worker_id, Trial.id).where(
            sa.text("trials.state IN ('queued', 'running')"),  # word for word the condition of the index
            Trial.state == "running",
            Trial.worker_id.in_(worker_ids),
        )
    )
    return {worker_id: trial_id for worker_id, trial_id in rows if worker_id is not None}


def _to_schema(worker: Worker, trial_id: str | None, alive: bool) -> schemas.Worker:
    return schemas.Worker(
        id=worker.id,
        project=worker.project,
        name=worker.name,
        device=worker.device,
        targets=worker.targets,
        versions=worker.versions,
        alive=alive,
        trial=trial_id,
        registered_at=worker.registered_at,
        last_seen_at=worker.last_seen_at,
    )
