"""The application: what runs at start and stop, the routers, the handlers of errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service import idempotency, problems
from service.builtins import register_builtins
from service.db import Database
from service.guard import Guard
from service.notifications import Notifications
from service.routes import (
    analyses,
    catalog,
    datasets,
    events,
    health,
    leaderboards,
    leases,
    pages,
    recommendations,
    sweep_pages,
    sweeps,
    trials,
    workers,
)
from service.scheduler import Scheduler
from service.services import Services
from service.settings import Settings


class OldSchemaError(RuntimeError):
    """The database has another schema than this program needs."""


class Application(FastAPI):
    """FastAPI, with errors described in the media type that they are sent in."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            problems.keep_media_type(super().openapi())
        return super().openapi()


def create_app(settings: Settings | None = None, *, start_scheduler: bool = True) -> FastAPI:
    """Return the application. Its services are in `app.state.services`; the database is prepared when it starts."""
    settings = settings or Settings()
    notifications = Notifications()
    database = Database(settings.database_url, notifications=notifications, pool_size=settings.pool_size)
    scheduler = Scheduler(database, notifications, settings)
    services = Services(settings, database, notifications, scheduler)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await to_thread.run_sync(prepare, database, settings)
        if start_scheduler:
            scheduler.start()
        try:
            yield
        finally:
            if start_scheduler:
                await to_thread.run_sync(scheduler.stop)
            await to_thread.run_sync(database.close)

    app = Application(
        title="Layersweep",
        summary="Hyperparameter exploration of Transformer layers, scored on engines",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        responses=problems.documented(422),
    )
    app.state.services = services
    app.add_middleware(Guard, token=settings.token)
    problems.install(app)
    for module in (
        sweeps,
        trials,
        datasets,
        leaderboards,
        recommendations,
        analyses,
        catalog,
        leases,
        workers,
        events,
        health,
        sweep_pages,
        pages,
    ):
        app.include_router(module.router, max_body_size=settings.max_document_bytes)
    return app


def prepare(database: Database, settings: Settings) -> None:
    """Bring an embedded database up to date, refuse an old PostgreSQL schema, and register the built-in datasets."""
    if database.dialect == "sqlite":
        database.upgrade()
    elif not database.schema_is_current():
        raise OldSchemaError("the database's schema is not the one this version needs: run `layersweep db upgrade`")
    register_builtins(database, settings)
    database.write(idempotency.forget_old)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _version() -> str:
    from layersweep import __version__

    return __version__
