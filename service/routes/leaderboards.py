"""/v1/sweeps/{id}/leaderboard and /front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common.paging import PageSize, PageToken, link_next
from service.common.schemas import Responses
from service.http import conditional_reads
from service.http.conditional_reads import ConditionalReadDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.results import leaderboards
from service.results import schemas as result_schemas
from service.results.exports import Export, csv_export, jsonl_export, sent
from service.results.leaderboards import Condition, Filters
from service.results.selection import Feasible

router = APIRouter(
    prefix="/v1/sweeps/{sweep_id}", tags=["leaderboards"], responses=documented(404, 422), route_class=ScopedRoute
)

Where = Annotated[
    list[str] | None,
    Query(
        max_length=20,
        description="keep trials whose metric or parameter compares so: latency_ms_p50<=2, mlp.kind=GatedMLP",
    ),
]

EXPORTS: dict[str, tuple[str, Callable[..., Export]]] = {
    "csv": ("text/csv; charset=utf-8", csv_export),
    "jsonl": ("application/jsonl", jsonl_export),
}
ALL_ROWS: Responses = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/jsonl": {"schema": {"type": "string", "description": "a LeaderboardRow a line"}},
        }
    }
}


@router.get(
    "/leaderboard", responses=ALL_ROWS | conditional_reads.NOT_MODIFIED, response_model=result_schemas.Leaderboard
)
@needs_scope("read")
async def get_leaderboard(
    sweep_id: str,
    read: ConditionalReadDep,
    sort: Annotated[str, Query(max_length=200, description="rank, number, a metric or a parameter; '-' turns it")] = (
        "rank"
    ),
    state: Annotated[list[str] | None, Query(description="keep trials in one of these states")] = None,
    feasible: Annotated[
        Feasible | None,
        Query(description="keep trials that keep every constraint, that do not, or that noise leaves undecided"),
    ] = None,
    on_front: bool | None = None,
    where: Where = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    format: Annotated[Literal["json", "csv", "jsonl"] | None, Query(description="over what Accept says")] = None,  # noqa: A002
) -> Response:
    """The trials of a sweep, ranked: by Pareto rank, then the first objective, then number; or as `sort` says.

    JSON is paged; with `If-None-Match` and `Prefer: wait=N` it is held until the ranking is another one, at most N
    seconds. CSV and JSON Lines (by Accept or `format`) are a stream of all rows.
    """
    filters = Filters(tuple(state or ()), feasible, on_front, tuple(map(Condition.parse, where or ())))
    store = read.services.columns
    wanted = format or _preferred(read.request.headers.get("accept", ""))
    if wanted in EXPORTS:
        media_type, make = EXPORTS[wanted]
        export = await read.services.read(lambda session: make(session, store, sweep_id, sort, filters))
        disposition = f'attachment; filename="leaderboard-{sweep_id}.{wanted}"'
        headers = {"Content-Disposition": disposition}
        return StreamingResponse(sent(read.services.read, export), media_type=media_type, headers=headers)

    def load(session: Session) -> result_schemas.Leaderboard:
        sweep = leaderboards.get_sweep(session, sweep_id)
        return leaderboards.page(session, store, sweep, sort=sort, filters=filters, size=page_size, token=page_token)

    def render(page: result_schemas.Leaderboard) -> Response:
        response = conditional_reads.json_response(page)
        link_next(read.request, response, page.next_page_token)
        return response

    return await read.answer(sweep_id, load, render, version_of=conditional_reads.ranked_version)


@router.get("/front")
@needs_scope("read")
def get_front(sweep_id: str, services: ServicesDep) -> result_schemas.Front:
    """The trials that no other dominates (Pareto rank 1), by the first objective."""
    return services.database.read(
        lambda session: leaderboards.front(session, leaderboards.get_sweep(session, sweep_id))
    )


def _preferred(accept: str) -> str:
    """The first format that the caller names, without weights; JSON where it names none of ours."""
    kinds = {"application/json": "json", "text/csv": "csv", "application/jsonl": "jsonl"}
    named = [kinds.get(part.split(";")[0].strip()) for part in accept.split(",")]
    return "json" if "json" in named else next((kind for kind in named if kind), "json")
