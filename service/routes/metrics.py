"""What Prometheus scrapes."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import metrics
from service.errors import ForbiddenError
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.operations.gauges import Gauges

router = APIRouter(tags=["health"], route_class=ScopedRoute)


@router.get("/metrics", response_class=PlainTextResponse)
@needs_scope("read")
def get_metrics(services: ServicesDep, caller: CallerDep) -> Response:
    """The figures of this process and of the database in Prometheus' text format. Takes a token of all projects."""
    if caller.bound_to is not None:
        raise ForbiddenError(f"these metrics cover all projects, and this token covers {caller.bound_to!r} alone")
    of_database = CollectorRegistry(auto_describe=False)
    of_database.register(Gauges(services.database, services.settings.worker_alive_seconds))
    content = generate_latest(of_database) + generate_latest(metrics.REGISTRY)
    return Response(content, media_type=CONTENT_TYPE_LATEST)
