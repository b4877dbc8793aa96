"""The web interface: plain pages from the server. Scripts only refresh what is there."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from service import catalog, views, workers
from service.access import GivenCaller
from service.apidocs import describe
from service.errors import NotFound, ServiceError, Unprocessable
from service.rendering import render, static_response
from service.services import GivenServices
from service.views import SweepQuery


class PageRoute(APIRoute):
    """A route whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_pages(request: Request) -> Response:
            try:
                return await handle(request)
            except ServiceError as error:
                return problem_page(error)
            except RequestValidationError as error:
                places = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
                return problem_page(Unprocessable(places))

        return handle_with_pages


class _PathOfNoApi(Convertor[str]):
    """Any path that is not the API's: there, errors stay machine-readable."""

    regex = r"(?!v1(?:/|$)).*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("page", _PathOfNoApi())

router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def problem_page(error: ServiceError) -> HTMLResponse:
    """The page that an error is."""
    return render("problem.html", status=error.status, error=error)


def _query(request: Request) -> SweepQuery:
    """What the address says; forms send empty fields for what is not chosen."""
    given = request.query_params
    return SweepQuery(
        sort=given.get("sort") or "rank",
        states=tuple(each for each in given.getlist("state") if each),
        feasible=_flag("feasible", given.get("feasible", "")),
        on_front=_flag("on_front", given.get("on_front", "")),
        x=given.get("x") or None,
        y=given.get("y") or None,
        page_token=given.get("page_token") or None,
    )


def _flag(name: str, text: str) -> bool | None:
    if text not in ("", "true", "false"):
        raise Unprocessable(f"{name}={text!r}: give true or false")
    return None if not text else text == "true"


@router.get("/")
def show_sweeps(
    services: GivenServices, caller: GivenCaller, before: Annotated[str | None, Query(max_length=26)] = None
) -> Response:
    return render("sweeps.html", **services.database.read(lambda session: views.sweeps(session, caller.lists, before)))


@router.get("/fragment")
def refresh_sweeps(
    services: GivenServices, caller: GivenCaller, before: Annotated[str | None, Query(max_length=26)] = None
) -> Response:
    return render("_sweeps.html", **services.database.read(lambda session: views.sweeps(session, caller.lists, before)))


@router.get("/sweeps/{sweep}")
def show_sweep(sweep: str, request: Request, services: GivenServices) -> Response:
    return _sweep_page("sweep.html", sweep, request, services)


@router.get("/sweeps/{sweep}/fragment")
def refresh_sweep(sweep: str, request: Request, services: GivenServices) -> Response:
    return _sweep_page("_sweep.html", sweep, request, services)


def _sweep_page(template: str, sweep: str, request: Request, services: GivenServices) -> Response:
    query = _query(request)
    return render(
        template, **services.database.read(lambda session: views.sweep(session, services.columns, sweep, query))
    )


@router.get("/trials/{trial}")
def show_trial(trial: str, services: GivenServices) -> Response:
    return render("trial.html", **services.database.read(lambda session: views.trial(session, trial)))


@router.get("/trials/{trial}/fragment")
def refresh_trial(trial: str, services: GivenServices) -> Response:
    return render("_trial.html", **services.database.read(lambda session: views.trial(session, trial)))


@router.get("/datasets")
def show_datasets(services: GivenServices, caller: GivenCaller) -> Response:
    return render("datasets.html", **services.database.read(lambda session: views.dataset_list(session, caller.lists)))


@router.get("/datasets/{dataset}")
def show_dataset(dataset: str, services: GivenServices, caller: GivenCaller) -> Response:
    return render(
        "dataset.html",
        **services.database.read(lambda session: views.dataset(session, dataset, caller.project, caller.lists)),
    )


@router.get("/layers")
def show_layers() -> Response:
    return render("layers.html", sections=catalog.layers(), presets=catalog.presets())


@router.get("/workers")
def show_workers(services: GivenServices, caller: GivenCaller) -> Response:
    items, _ = services.database.read(
        lambda session: workers.page(
            session,
            alive_seconds=services.settings.worker_alive_seconds,
            only_alive=False,
            page_size=200,
            page_token=None,
            project=caller.lists,
        )
    )
    targets = services.database.read(lambda session: catalog.targets(session, caller.lists))
    return render("workers.html", workers=items, targets=targets, now=services.database.read(views.now))


@router.get("/docs")
def show_docs(request: Request) -> Response:
    return render("docs.html", api=describe(request.app.openapi()))


@router.get("/static/{name}")
def get_static(name: str, request: Request) -> Response:
    found = static_response(name, request.headers.get("if-none-match", ""))
    if found is None:
        raise NotFound(f"there is no file {name!r}")
    return found


@router.get("/{path:page}")
def show_nothing(path: str) -> Response:
    raise NotFound(f"there is no page /{path}")
