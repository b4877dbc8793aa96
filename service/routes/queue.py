"""What waits for which workers."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth.scopes import ScopedRoute, needs_scope
from service.fleet import queue_by_needs, schemas
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep

router = APIRouter(prefix="/v1/queue", tags=["workers"], route_class=ScopedRoute)


@router.get("")
@needs_scope("read")
def get_queue(services: ServicesDep, caller: CallerDep) -> schemas.Queue:
    """What waits, by what it needs of a worker: how many trials, for how long, and why nothing takes them."""
    alive_seconds = services.settings.worker_alive_seconds
    items = services.database.read(lambda session: queue_by_needs.entries(session, caller.lists, alive_seconds))
    return schemas.Queue(items=items)
