"""The pages of a sweep, of its trials, and of their comparison; and the editor in which a sweep is written."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import Form, Query, Request, Response

from service.auth.scopes import needs_scope
from service.errors import ServiceError
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.results.columns import ColumnStore
from service.routes.page_route import page_router, wanted_part
from service.scheduling.device_model import previews
from service.web.rendering import render
from service.web.views import compare, compare_sweeps, editor, sweep, trials
from service.web.views.query import SweepQuery
from service.web.views.shown_sweep import ShownSweep

router = page_router()

_PARTS = {"sweep-live": "_sweep_live.html", "sweep-results": "_sweep_results.html", "sweep-board": "_sweep_board.html"}
"""Parts of a sweep's page that are sent alone, by their id."""


@router.get("/new")
@needs_scope("read")
def show_editor(
    services: ServicesDep,
    caller: CallerDep,
    source: Annotated[str, Query(alias="from", max_length=200)] = editor.USUAL,
) -> Response:
    offered, begun = services.database.read(
        lambda session: (
            editor.beginnings(session, caller.lists),
            editor.beginning(session, source, caller.bound_to),
        )
    )
    return render("new.html", offered, begun=begun, source=source)


@router.post("/new/check")
@needs_scope("submit")
async def check_document(
    request: Request, services: ServicesDep, caller: CallerDep, document: Annotated[str, Form()] = ""
) -> Response:
    """What is said beside the editor; nothing is stored. A newer text ends the request for an older one."""
    text, project = document.replace("\r\n", "\n"), caller.project
    try:
        written = editor.read(text, services.settings.max_document_bytes)
        prepared = await services.validation.prepare(written, project, request.is_disconnected)
    except ServiceError as error:
        return render("_findings.html", editor.refused(text, error))
    alive_seconds = services.settings.worker_alive_seconds
    describe = partial(previews.preview, project=project, alive_seconds=alive_seconds)
    preview = await to_thread.run_sync(describe, services.database, prepared)
    return render("_findings.html", editor.accepted(text, prepared, preview))


@router.get("/sweeps/{sweep_id}")
@needs_scope("read")
def show_sweep(sweep_id: str, request: Request, services: ServicesDep) -> Response:
    query = SweepQuery.of(request.query_params)
    alive_seconds = services.settings.worker_alive_seconds
    part = wanted_part(request)
    if part not in _PARTS:
        found = services.database.read(
            lambda session: sweep.whole(ShownSweep(session, sweep_id, query, alive_seconds), services.columns)
        )
        return render("sweep.html", *found)
    shown, found = services.database.read(
        lambda session: _part(ShownSweep(session, sweep_id, query, alive_seconds), services.columns, part)
    )
    response = render(_PARTS[part], found, query=shown.query)
    if any(name.startswith(("limit.", "weight.")) for name in request.query_params):
        # As what the sliders say is written for the API, and for a link.
        response.headers["HX-Replace-Url"] = shown.query.url(f"/sweeps/{sweep_id}")
    if request.headers.get("hx-boosted") == "true":
        # As the address is written here: without the empty fields that a form sends.
        response.headers["HX-Push-Url"] = query.url(f"/sweeps/{sweep_id}", page_token=query.page_token)
    return response


def _part(
    shown: ShownSweep, store: ColumnStore, part: str
) -> tuple[ShownSweep, sweep.LivePart | sweep.ResultsPart | sweep.BoardPart]:
    if part == "sweep-live":
        return shown, sweep.live(shown)
    if part == "sweep-results":
        return shown, sweep.results(shown)
    return shown, sweep.board(shown, store)


@router.get("/sweeps/{sweep_id}/compare")
@needs_scope("read")
def show_comparison(sweep_id: str, request: Request, services: ServicesDep) -> Response:
    query = SweepQuery.of(request.query_params)
    return render("compare.html", services.database.read(lambda session: compare.compare(session, sweep_id, query)))


@router.get("/compare")
@needs_scope("read")
def show_sweeps_compared(
    services: ServicesDep,
    caller: CallerDep,
    sweep: Annotated[list[str] | None, Query(max_length=50)] = None,
) -> Response:
    ids = [each for each in sweep or () if each]
    return render(
        "compare_sweeps.html",
        services.database.read(
            lambda session: compare_sweeps.compare_sweeps(session, ids, bound_to=caller.bound_to, lists=caller.lists)
        ),
    )


@router.get("/trials/{trial}")
@needs_scope("read")
def show_trial(trial: str, request: Request, services: ServicesDep) -> Response:
    template = "_trial.html" if wanted_part(request) == "trial" else "trial.html"
    return render(template, services.database.read(lambda session: trials.trial(session, trial)))
