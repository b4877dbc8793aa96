"""Workers register here and are listed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.fleet import device_use, executions
from service.fleet.schemas import WorkerReport
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.page_reads import PageReadDep
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequestDep
from service.leases import schemas as lease_schemas
from service.leases import workers

router = APIRouter(prefix="/v1/workers", tags=["workers"], route_class=ScopedRoute)


@router.post("", status_code=201, response_model=lease_schemas.Registered, responses=documented(409))
@needs_scope("work")
async def register_worker(body: lease_schemas.WorkerRegistration, call: WriteRequestDep) -> Response:
    """Register a worker with the capabilities of its targets. It claims trials of what its token reaches.

    409 (`device-in-use`) where a living worker has the same GPU; `Retry-After` says when that one is forgotten if it
    was killed. A worker that stops in good order signs off, and its GPU is free at once.
    """
    settings = call.services.settings

    def register(session: Session) -> lease_schemas.Registered:
        worker = workers.register(session, body, call.caller.lists, alive_seconds=settings.worker_alive_seconds)
        return lease_schemas.Registered(
            id=worker.id,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            target_keys=[target["key"] for target in worker.targets],
        )

    return await call.answer("worker.register", register, status=201)


@router.get("/{worker}", responses=documented(404))
@needs_scope("read")
def get_worker(worker: str, services: ServicesDep, caller: CallerDep) -> lease_schemas.Worker:
    """One worker, with what each slot does and how busy the device was."""
    alive_seconds = services.settings.worker_alive_seconds

    def read(session: Session) -> lease_schemas.Worker:
        found = workers.read(session, worker, alive_seconds, caller.lists)
        (shown,) = executions.added_to(session, [found], caller.lists)
        return shown

    return services.database.read(read)


@router.delete("/{worker}", status_code=204)
@needs_scope("work")
async def sign_off_worker(worker: str, call: UnkeyedWriteRequestDep) -> Response:
    """Sign a worker off that stops: it is not alive any more, and its GPU is free. What it did stays."""
    return await call.done(
        "worker.sign_off", lambda session: workers.deregister(session, worker, call.caller.lists), subject=worker
    )


@router.post("/{worker}:report", response_model=WorkerReport)
@needs_scope("work")
async def report_on_worker(worker: str, body: WorkerReport, call: WriteRequestDep) -> Response:
    """Say how busy the worker's device was, about once a minute. It renews nothing; the answer repeats it."""
    return await call.small_answer(lambda session: device_use.note(session, worker, body, call.caller.lists))


@router.get("")
@needs_scope("read")
def list_workers(
    pages: PageReadDep, alive: Annotated[bool, Query(description="only those heard of lately")] = False
) -> schemas.Page[lease_schemas.Worker]:
    """List workers, the newest first, with what each slot does and how busy the device was."""
    alive_seconds = pages.services.settings.worker_alive_seconds

    def page(session: Session) -> tuple[list[lease_schemas.Worker], str | None]:
        items, token = workers.page(
            session,
            alive_seconds=alive_seconds,
            only_alive=alive,
            page_size=pages.size,
            page_token=pages.token,
            project=pages.project,
        )
        return executions.added_to(session, items, pages.project), token

    return pages.answer(page, lambda worker: worker)
