"""The web interface: plain pages from the server. Scripts only refresh what is there."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from service.auth.scopes import needs_no_token, needs_scope
from service.errors import NotFoundError
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.routes.page_route import WayIn, page_router, wanted_part
from service.sweeps.catalog import catalog
from service.web.api_reference import describe
from service.web.rendering import render, static_response
from service.web.views import datasets, sweeps, workers


class _PathOfNoApi(Convertor[str]):
    """Any path that is not the API's: there, errors stay machine-readable."""

    regex = r"(?!v1(?:/|$)).*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("page", _PathOfNoApi())

router = page_router()


@router.get("/")
@needs_scope("read")
def show_sweeps(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    before: Annotated[str | None, Query(max_length=26)] = None,
    state: Annotated[str | None, Query(max_length=16)] = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
    tag: Annotated[str | None, Query(max_length=32)] = None,
    archived: Annotated[bool, Query()] = False,
) -> Response:
    template = "_sweeps.html" if wanted_part(request) == "sweeps" else "sweeps.html"
    wanted = sweeps.SweepListFilter(caller.lists, before, state or None, name or None, tag or None, archived)
    view = services.database.read(lambda session: sweeps.sweeps(session, wanted))
    return render(template, view, WayIn.of(request))


@router.get("/datasets")
@needs_scope("read")
def show_datasets(services: ServicesDep, caller: CallerDep) -> Response:
    return render("datasets.html", services.database.read(lambda session: datasets.dataset_list(session, caller.lists)))


@router.get("/datasets/{dataset}")
@needs_scope("read")
def show_dataset(dataset: str, services: ServicesDep, caller: CallerDep) -> Response:
    return render(
        "dataset.html",
        services.database.read(lambda session: datasets.dataset(session, dataset, caller.project, caller.lists)),
    )


@router.get("/layers")
@needs_scope("read")
def show_layers() -> Response:
    return render("layers.html", sections=catalog.layers(), presets=catalog.presets())


@router.get("/workers")
@needs_scope("read")
def show_workers(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    template = "_workers.html" if wanted_part(request) == "workers" else "workers.html"
    alive_seconds = services.settings.worker_alive_seconds
    view = services.database.read(lambda session: workers.workers_page(session, caller.lists, alive_seconds))
    return render(template, view, WayIn.of(request))


@router.get("/docs")
@needs_scope("read")
def show_docs(request: Request) -> Response:
    way = WayIn.of(request)
    return render("docs.html", api=describe(request.app.openapi(), way.address, needs_token=way.needs_token))


@router.get("/static/{name:path}")
@needs_no_token
def get_static(name: str, request: Request) -> Response:
    found = static_response(name, request.headers.get("if-none-match", ""))
    if found is None:
        raise NotFoundError(f"there is no file {name!r}")
    return found


@router.get("/{path:page}")
@needs_scope("read")
def show_missing_page(path: str) -> Response:
    raise NotFoundError(f"there is no page /{path}")
