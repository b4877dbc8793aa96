"""The web interface: plain pages from the server. Scripts only refresh what is there."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from service import catalog, workers
from service.apidocs import describe
from service.db import now
from service.errors import NotFound
from service.rendering import render, static_response
from service.routes.page_route import page_router, wanted_part
from service.services import GivenServices
from service.views import datasets, sweeps


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
def show_sweeps(
    request: Request,
    services: GivenServices,
    before: Annotated[str | None, Query(max_length=26)] = None,
    state: Annotated[str | None, Query(max_length=16)] = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    template = "_sweeps.html" if wanted_part(request) == "sweeps" else "sweeps.html"
    shown = services.database.read(lambda session: sweeps.sweeps(session, before, state or None, name or None))
    return render(template, **shown)


@router.get("/datasets")
def show_datasets(services: GivenServices) -> Response:
    return render("datasets.html", **services.database.read(datasets.dataset_list))


@router.get("/datasets/{dataset}")
def show_dataset(dataset: str, services: GivenServices) -> Response:
    return render("dataset.html", **services.database.read(lambda session: datasets.dataset(session, dataset)))


@router.get("/layers")
def show_layers() -> Response:
    return render("layers.html", sections=catalog.layers(), presets=catalog.presets())


@router.get("/workers")
def show_workers(services: GivenServices) -> Response:
    items, _ = services.database.read(
        lambda session: workers.page(
            session,
            alive_seconds=services.settings.worker_alive_seconds,
            only_alive=False,
            page_size=200,
            page_token=None,
        )
    )
    targets = services.database.read(catalog.targets)
    return render("workers.html", workers=items, targets=targets, now=services.database.read(now))


@router.get("/docs")
def show_docs(request: Request) -> Response:
    return render("docs.html", api=describe(request.app.openapi()))


@router.get("/static/{name:path}")
def get_static(name: str, request: Request) -> Response:
    found = static_response(name, request.headers.get("if-none-match", ""))
    if found is None:
        raise NotFound(f"there is no file {name!r}")
    return found


@router.get("/{path:page}")
def show_nothing(path: str) -> Response:
    raise NotFound(f"there is no page /{path}")
