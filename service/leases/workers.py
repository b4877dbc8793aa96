"""Workers: who registered, with which targets, and who is alive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.results_version import UNSAID
from service.common.ids import new_id
from service.common.notifications import SCHEDULER
from service.common.paging import decode_token, first_page
from service.database.json_columns import DeviceFacts, RegisteredTarget
from service.database.models import Trial, Worker
from service.database.sessions import announce, now, now_sql
from service.errors import DeviceInUseError, NotFoundError, Problem, UnprocessableError
from service.leases import schemas as lease_schemas

_VERSION_DIGITS = 9

SEVERAL_DEVICES = "+"
"""Between the UUIDs of a worker that has several GPUs."""


def target_key(capabilities: lease_schemas.Capabilities) -> str:
    """What makes scores comparable: the runtime, its version and the device's model."""
    return f"{capabilities.runtime} {capabilities.version} on {capabilities.device_model}"


def results_version_of(target: RegisteredTarget) -> int:
    """The `RESULTS_VERSION` of the worker that registered the target."""
    return target.get("results_version", UNSAID)


def _results_version(versions: Mapping[str, str]) -> int:
    reported = versions.get("results", str(UNSAID))
    if not reported.isascii() or not reported.isdecimal() or len(reported) > _VERSION_DIGITS:
        problem = Problem(
            "/versions/results", f"{reported!r} is no version of results", "a whole number, or leave it out"
        )
        raise UnprocessableError("the worker's version of its results is no number", problems=[problem])
    return int(reported)


def is_alive(alive_seconds: float) -> sa.ColumnElement[bool]:
    """Workers that were heard of lately and have not signed off."""
    return sa.and_(Worker.last_seen_at >= now_sql() - alive_seconds, Worker.signed_off_at.is_(None))


def register(
    session: Session,
    registration: lease_schemas.WorkerRegistration,
    project: str | None = None,
    *,
    alive_seconds: float,
) -> Worker:
    """Store a worker of a project (None: of all) under a new id. A process that starts again is another worker.

    Raises DeviceInUseError if a living worker has the same GPU: two would disturb each other's measurements.
    """
    if registration.device.kind == "gpu":
        for uuid in sorted(registration.device.uuid.split(SEVERAL_DEVICES)):
            _take_device(session, uuid, alive_seconds)
    version = _results_version(registration.versions)
    targets = [
        cast("RegisteredTarget", {**target.model_dump(), "key": target_key(target), "results_version": version})
        for target in registration.targets
    ]
    keys = [target["key"] for target in targets]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            problem = Problem(f"/targets/{position}", f"{key} is there twice", "name each target once")
            raise UnprocessableError(f"the target {key} is there twice", problems=[problem])
    time = now(session)
    worker = Worker(
        id=new_id(),
        project=project,
        name=registration.name,
        device=cast("DeviceFacts", registration.device.model_dump()),
        device_uuid=registration.device.uuid,
        targets=targets,
        versions=dict(registration.versions),
        labels=dict(sorted(registration.labels.items())),
        slots=registration.slots,
        registered_at=time,
        last_seen_at=time,
    )
    session.add(worker)
    session.flush()
    # Sweeps that wait for a target may have found one.
    announce(session, SCHEDULER)
    return worker


def deregister(session: Session, worker_id: str, project: str | None) -> None:
    """A worker stops and gives its device up. Raises NotFoundError as `check_reach` does."""
    check_reach(session, worker_id, project)
    session.execute(sa.update(Worker).where(Worker.id == worker_id).values(signed_off_at=now_sql()))


def _take_device(session: Session, uuid: str, alive_seconds: float) -> None:
    """Raise DeviceInUseError while a worker lives on the GPU; those that were forgotten are signed off, and come back
    as new ones or not at all."""
    if session.get_bind().dialect.name == "postgresql":
        # Of two that register at once, the second sees the first. SQLite has one writer anyway.
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(uuid, 0))))
    between = SEVERAL_DEVICES
    has_it = (between + Worker.device_uuid + between).contains(f"{between}{uuid}{between}", autoescape=True)
    holds = sa.select(sa.func.max(Worker.last_seen_at)).where(has_it, is_alive(alive_seconds))
    seen_at = session.scalar(holds)
    if seen_at is not None:
        # Not which worker: it may be another project's.
        lapses = math.ceil(seen_at + alive_seconds - now(session)) + 1
        raise DeviceInUseError(
            f"{uuid} has a living worker already, and two on one GPU disturb each other's measurements: stop that one, "
            f"or use another device. One that was killed is forgotten {lapses} s from now",
            retry_after_seconds=lapses,
        )
    forgotten = (
        sa.select(Worker.id)
        .where(has_it, Worker.signed_off_at.is_(None))
        .order_by(Worker.id)
        .with_for_update(key_share=True)
    )
    ids = session.scalars(forgotten).all()
    session.execute(sa.update(Worker).where(Worker.id.in_(ids)).values(signed_off_at=now_sql()))


def page(
    session: Session,
    *,
    alive_seconds: float,
    only_alive: bool,
    page_size: int,
    page_token: str | None,
    project: str | None = None,
) -> tuple[list[lease_schemas.Worker], str | None]:
    """Return the workers that serve a project (None: all), the newest first, and the token of the next page."""
    statement = sa.select(Worker, is_alive(alive_seconds)).where(serves(project))
    if only_alive:
        statement = statement.where(is_alive(alive_seconds))
    if page_token is not None:
        (before,) = decode_token(page_token, str)
        statement = statement.where(Worker.id < before)
    found = session.execute(statement.order_by(Worker.id.desc()).limit(page_size + 1)).all()
    rows, token = first_page(found, page_size, lambda row: (row[0].id,))
    return _shown(session, rows), token


def read(session: Session, worker_id: str, alive_seconds: float, project: str | None) -> lease_schemas.Worker:
    """One worker that serves a project (None: any). Raises NotFoundError."""
    statement = sa.select(Worker, is_alive(alive_seconds)).where(Worker.id == worker_id, serves(project))
    found = session.execute(statement).first()
    if found is None:
        raise NotFoundError(f"there is no worker {worker_id}")
    (worker,) = _shown(session, [found])
    return worker


def serves(project: str | None) -> sa.ColumnElement[bool]:
    """Workers that claim trials of the project; None: every worker."""
    if project is None:
        return sa.true()
    return sa.or_(Worker.project.is_(None), Worker.project == project)


def check_reach(session: Session, worker_id: str, project: str | None) -> None:
    """Raise NotFoundError if the worker is not one of `project` (None: of any)."""
    worker = session.get(Worker, worker_id)
    if worker is None or (project is not None and worker.project != project):
        raise NotFoundError(f"there is no worker {worker_id}: register again")


def _shown(session: Session, rows: Sequence[sa.Row[Worker, bool]]) -> list[lease_schemas.Worker]:
    """Workers, each with whether it is alive, with the trials that they run."""
    running = _running(session, [worker.id for worker, _ in rows])
    return [_to_schema(worker, running.get(worker.id, []), alive) for worker, alive in rows]


def _running(session: Session, worker_ids: list[str]) -> dict[str, list[str]]:
    rows = session.execute(
        sa.select(Trial.worker_id, Trial.id)
        # Word for word the condition of the index.
        .where(sa.text("trials.state = 'running'"), Trial.worker_id.in_(worker_ids))
        .order_by(Trial.id)
    )
    running: dict[str, list[str]] = {}
    for worker_id, trial_id in rows:
        running.setdefault(str(worker_id), []).append(trial_id)
    return running


def _to_schema(worker: Worker, trial_ids: list[str], alive: bool) -> lease_schemas.Worker:
    return lease_schemas.Worker(
        id=worker.id,
        project=worker.project,
        name=worker.name,
        device=worker.device,
        targets=worker.targets,
        versions=worker.versions,
        labels=worker.labels,
        slots=worker.slots,
        alive=alive,
        busy_slots=len(trial_ids),
        trial=trial_ids[0] if trial_ids else None,
        trials=trial_ids,
        registered_at=worker.registered_at,
        last_seen_at=worker.last_seen_at,
    )
