"""Workers register here and are listed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service import schemas, workers
from service.paging import PageSize, PageToken, link_next
from service.services import GivenServices

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.post("", status_code=201)
def register_worker(body: schemas.WorkerRegistration, services: GivenServices) -> schemas.Registered:
    """Register a worker with the capabilities of its targets."""
    worker = services.database.write(lambda session: workers.register(session, body))
    return schemas.Registered(
        id=worker.id,
        lease_seconds=services.settings.lease_seconds,
        heartbeat_seconds=services.settings.heartbeat_seconds,
        target_keys=[target["key"] for target in worker.targets],
    )


@router.get("")
def list_workers(
    request: Request,
    response: Response,
    services: GivenServices,
    alive: Annotated[bool, Query(description="only those heard of lately")] = False,
    page_size: PageSize = 100,
    page_token: PageToken = None,
) -> schemas.Page[schemas.Worker]:
    """List workers, the newest first."""
    items, token = services.database.read(
        lambda session: workers.page(
            session,
            alive_seconds=services.settings.worker_alive_seconds,
            only_alive=alive,
            page_size=page_size,
            page_token=page_token,
        )
    )
    link_next(request, response, token)
    return schemas.Page[schemas.Worker](items=items, next_page_token=token)
