"""The application: what runs at start and stop, the routers, the handlers of errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, cast

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from layersweep.json_values import JsonObject
from service.auth import scopes
from service.auth.access import Access
from service.auth.rate_limits import Limits
from service.common import tracing
from service.common.notifications import Notifications
from service.database.sessions import Database
from service.datasets.builtins import register_builtins
from service.errors import UnavailableError
from service.events import server_key
from service.events.sender import WebhookSender
from service.events.webhooks import any_exist as any_webhooks
from service.http import api_description, error_handlers, idempotency
from service.http.callers import within_project
from service.http.dependencies import Services
from service.http.long_polling import ChangePoller
from service.http.middleware import RequestMiddleware
from service.operations import data_folder
from service.operations.housekeeping import Housekeeping
from service.results.prewarming import prewarm
from service.routes import (
    administration,
    analyses,
    artifacts,
    assertions,
    catalog,
    checkpoints,
    confirmations,
    datasets,
    events,
    health,
    leaderboards,
    leases,
    login,
    metrics,
    openapi,
    pages,
    queue,
    recommendations,
    reports,
    schemas,
    sweep_pages,
    sweeps,
    trials,
    uploads,
    webhooks,
    workers,
)
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.sweeps.validation import Validation

_log = logging.getLogger(__name__)


class Application(FastAPI):
    """FastAPI, with a description of who may call and of every error."""

    def openapi(self) -> JsonObject:
        if self.openapi_schema is None:
            api_description.complete(super().openapi(), scopes.declarations(self))
        return super().openapi()


def create_app(settings: Settings | None = None, *, start_scheduler: bool = True) -> FastAPI:
    """Return the application. Its services are in `app.state.services`; the database is prepared when it starts."""
    settings = settings or Settings()
    notifications = Notifications()
    tracer_provider = tracing.start(settings)
    database = Database(settings.database_url, notifications=notifications, pool_size=settings.pool_size)
    scheduler = Scheduler(database, notifications, settings)
    housekeeping = Housekeeping(database, settings)
    sender = WebhookSender(database, notifications, settings)
    access = Access(database, settings.threads, Limits(settings))
    validation = Validation(database, settings.validation_processes)
    services = Services(settings, database, notifications, scheduler, access, validation)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        # A route that does not say who may call it is never served.
        list(scopes.declarations(app))
        await to_thread.run_sync(prepare, database, settings)
        await to_thread.run_sync(_warn_of_wrong_folder, database, settings)
        sending: asyncio.Task[None] | None = None
        if start_scheduler:
            scheduler.start()
            housekeeping.start()
            sending = asyncio.create_task(sender.run(), name="webhooks")
        background = [
            asyncio.create_task(ChangePoller(services).run(), name="watch"),
            asyncio.create_task(prewarm(services.read, services.columns), name="warm"),
        ]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            if sending is not None:
                sender.stop()
                await sending
                await to_thread.run_sync(scheduler.stop)
                await to_thread.run_sync(housekeeping.stop)
            await validation.close()
            await to_thread.run_sync(database.close)
            await to_thread.run_sync(tracing.stop, tracer_provider)

    app = Application(
        title="Layersweep",
        summary="Hyperparameter exploration of Transformer layers, scored on engines",
        version=_version(),
        lifespan=lifespan,
        routes=_routes(settings.max_document_bytes),
        # It is a route of its own, which says like all others who may call it.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Its metrics and logs would be a second set beside ours, and hold what callers sent.
        telemetry={
            "auto_configure": False,
            "tracing": tracer_provider is not None,
            "tracer_provider": tracer_provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )
    app.state.services = services
    error_handlers.install(app)
    open_paths = [each.pattern for each in scopes.declarations(app) if not each.opened_by]
    app.add_middleware(RequestMiddleware, access=access, settings=settings, open_paths=open_paths)
    if settings.trusted_proxies:
        app.add_middleware(
            cast("Any", ProxyHeadersMiddleware), trusted_hosts=[str(network) for network in settings.trusted_proxies]
        )
    return app


@lru_cache(maxsize=4)
def _routes(max_body_size: int) -> list[BaseRoute]:
    """All routes. Applications share them: their parameters and answers take longer to read than all else here."""
    router = APIRouter(
        generate_unique_id_function=_operation_id, responses=error_handlers.documented(401, 403, 404, 422, 429, 503)
    )
    # Health answers everybody.
    router.include_router(health.router)
    for module in (
        # First: routes are tried one after the other, and workers ask most.
        leases,
        sweeps,
        trials,
        datasets,
        uploads,
        leaderboards,
        recommendations,
        reports,
        analyses,
        confirmations,
        assertions,
        artifacts,
        catalog,
        schemas,
        checkpoints,
        workers,
        queue,
        events,
        administration,
        webhooks,
        metrics,
        openapi,
        login,
        sweep_pages,
        # Last: its last route takes every path that no other has.
        pages,
    ):
        router.include_router(module.router, max_body_size=max_body_size, dependencies=[Depends(within_project)])
    return router.routes


def prepare(database: Database, settings: Settings) -> None:
    """Bring an embedded database up to date, refuse another PostgreSQL schema, and register the built-in datasets."""
    if database.dialect == "sqlite":
        database.upgrade()
    else:
        database.check_schema()
    register_builtins(database, settings)
    database.write(idempotency.forget_old)


def _warn_of_wrong_folder(database: Database, settings: Settings) -> None:
    """Say at the start what makes the service not ready, and what no webhook can be signed with."""
    try:
        data_folder.check(database, settings)
        server_key.check(settings, lambda: database.read(any_webhooks))
    except UnavailableError as problem:
        _log.warning("the data folder is %s: %s", settings.data_dir.absolute(), problem.detail)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _version() -> str:
    from layersweep import __version__

    return __version__
