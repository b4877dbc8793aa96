"""/v1/sweeps/{id}/leaderboard and /front."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from service import leaderboards, schemas
from service.columns import ColumnStore
from service.leaderboards import Condition, Filters
from service.paging import PageSize, PageToken, link_next
from service.problems import documented
from service.routes import conditional
from service.routes.conditional import IfNoneMatch, Prefer
from service.services import GivenServices
from service.tables import leaderboard_csv

router = APIRouter(prefix="/v1/sweeps/{sweep_id}", tags=["leaderboards"], responses=documented(404, 422))

Where = Annotated[
    list[str] | None,
    Query(
        max_length=20,
        description="keep trials whose metric or parameter compares so: latency_ms_p50<=2, mlp.kind=GatedMLP",
    ),
]

CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}}}


@router.get("/leaderboard", responses=CSV | conditional.NOT_MODIFIED, response_model=schemas.Leaderboard)
async def get_leaderboard(
    sweep_id: str,
    request: Request,
    services: GivenServices,
    sort: Annotated[str, Query(max_length=200, description="rank, number, a metric or a parameter; '-' turns it")] = (
        "rank"
    ),
    state: Annotated[list[str] | None, Query(description="keep trials in one of these states")] = None,
    feasible: bool | None = None,
    on_front: bool | None = None,
    where: Where = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    format: Annotated[Literal["json", "csv"] | None, Query(description="over what Accept says")] = None,  # noqa: A002
    if_none_match: IfNoneMatch = None,
    prefer: Prefer = None,
) -> Response:
    """The trials of a sweep, ranked: by Pareto rank, then the first objective, then number; or as `sort` says.

    CSV (by Accept or `format`) holds all rows; JSON is paged. With `If-None-Match` and `Prefer: wait=N` the answer is
    held until the ranking is another one, at most N seconds.
    """
    filters = Filters(tuple(state or ()), feasible, on_front, tuple(map(Condition.parse, where or ())))
    store = services.columns

    def load_csv(session: Session) -> str:
        return _csv(session, store, sweep_id, sort, filters)

    def render_csv(text: str) -> Response:
        disposition = f'attachment; filename="leaderboard-{sweep_id}.csv"'
        return Response(text, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": disposition})

    def load(session: Session) -> schemas.Leaderboard:
        sweep = leaderboards.get_sweep(session, sweep_id)
        return leaderboards.page(session, store, sweep, sort=sort, filters=filters, size=page_size, token=page_token)

    def render(page: schemas.Leaderboard) -> Response:
        response = conditional.json_response(page)
        link_next(request, response, page.next_page_token)
        return response

    version = conditional.ranked_version
    if format == "csv" or (format is None and _prefers_csv(request.headers.get("accept", ""))):
        return await conditional.of_sweep(
            request, services, sweep_id, load_csv, render_csv, variant="csv", read_version=version
        )
    return await conditional.of_sweep(request, services, sweep_id, load, render, read_version=version)


@router.get("/front")
def get_front(sweep_id: str, services: GivenServices) -> schemas.Front:
    """The trials that no other dominates (Pareto rank 1), by the first objective."""
    return services.database.read(
        lambda session: leaderboards.front(session, leaderboards.get_sweep(session, sweep_id))
    )


def _csv(session: Session, store: ColumnStore, sweep_id: str, sort: str, filters: Filters) -> str:
    sweep = leaderboards.get_sweep(session, sweep_id)
    return leaderboard_csv(session, store, sweep, sort, filters)


def _prefers_csv(accept: str) -> bool:
    names = [part.split(";")[0].strip() for part in accept.split(",")]
    return "text/csv" in names and "application/json" not in names
