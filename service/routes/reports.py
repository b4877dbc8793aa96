"""/v1/sweeps/{id}/report: the whole story on a few pages, for somebody who was not there."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common.schemas import Responses
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.recommendation.recommend import preferences_of
from service.report import rendering
from service.report.contents import read_report
from service.report.schemas import Report
from service.results import leaderboards
from service.routes.recommendations import Prefer, Weight, Within

router = APIRouter(
    prefix="/v1/sweeps/{sweep_id}", tags=["recommendations"], responses=documented(404, 422), route_class=ScopedRoute
)

Format = Literal["html", "markdown", "json"]
FORMATS: Responses = {200: {"content": {"text/html": {}, "text/markdown": {}}}}
_OF_MEDIA_TYPE: dict[str, Format] = {"text/html": "html", "text/markdown": "markdown", "application/json": "json"}


@router.get("/report", response_model=Report, responses=FORMATS)
@needs_scope("read")
def get_report(
    sweep_id: str,
    request: Request,
    services: ServicesDep,
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    format: Annotated[Format | None, Query(description="over what Accept says; JSON by default")] = None,  # noqa: A002
) -> Report | Response:
    """Task and data, the choice and how sure it is, constraints, overfitting, literature, targets, and how to redo it.

    HTML stands alone: one file without scripts that fetches nothing.
    """

    def read(session: Session) -> Report:
        sweep = leaderboards.get_sweep(session, sweep_id)
        wishes = preferences_of(sweep, prefer=prefer or (), within=within or (), weight=weight or ())
        return read_report(session, sweep_id, wishes)

    report = services.database.read(read)
    chosen = format or _accepted(request.headers.get("accept", ""))
    if chosen == "html":
        return Response(
            rendering.html(report), media_type="text/html; charset=utf-8", headers=dict(rendering.headers())
        )
    if chosen == "markdown":
        return Response(rendering.markdown(report), media_type="text/markdown; charset=utf-8")
    return report


def _accepted(accept: str) -> Format:
    """The first of the formats that the header names."""
    for part in accept.split(","):
        found = _OF_MEDIA_TYPE.get(part.split(";")[0].strip())
        if found is not None:
            return found
    return "json"
