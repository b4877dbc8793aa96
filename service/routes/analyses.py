"""/v1/sweeps/{id}/columns, /tradeoff, /hypervolume, /importance and /effect: what the pictures of a sweep show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session, object_session

from layers.problems import shown
from service.auth.scopes import ScopedRoute, needs_scope
from service.database.models import Sweep
from service.errors import UnprocessableError
from service.http import conditional_reads
from service.http.conditional_reads import ConditionalRead, ConditionalReadDep
from service.http.error_handlers import documented
from service.noise.ties import all_tied_with_the_front
from service.results import effects, hypervolume, importance, leaderboards, plot_selection
from service.results import schemas as result_schemas
from service.results.columns import Columns

router = APIRouter(
    prefix="/v1/sweeps/{sweep}",
    tags=["analyses"],
    responses={**documented(404, 422), **conditional_reads.NOT_MODIFIED},
    route_class=ScopedRoute,
)

Answer = TypeVar("Answer", bound=BaseModel)
Limit = Annotated[int, Query(ge=1, le=5000, description="most trials: the front, the rest evenly")]
Name = Annotated[str, Query(max_length=200)]


async def _answer(
    read: ConditionalRead,
    sweep_id: str,
    names: Callable[[Sweep], Iterable[str]],
    analyse: Callable[[Columns, Sweep], Answer],
) -> Response:
    """What `analyse` makes of these columns of the sweep; calculated once for each version of them."""

    def load(session: Session) -> BaseModel:
        sweep = leaderboards.get_sweep(session, sweep_id)
        columns = read.services.columns.of(session, sweep, names(sweep))
        url = read.request.url
        return columns.cached(str(url.query) + url.path, lambda: analyse(columns, sweep))

    return await read.answer_json(sweep_id, load)


@router.get("/columns", response_model=result_schemas.ColumnSample)
@needs_scope("read")
async def get_columns(
    sweep: str,
    read: ConditionalReadDep,
    name: Annotated[list[str], Query(min_length=1, max_length=40, description="metrics and parameters")],
    limit: Limit = 2000,
) -> Response:
    """Metrics and parameters of the measured trials as lists: the whole front, the rest evenly thinned."""

    return await _answer(
        read,
        sweep,
        lambda row: plot_selection.full_names(row, name).values(),
        lambda columns, row: plot_selection.sample(columns, row, plot_selection.full_names(row, name), limit),
    )


@router.get("/tradeoff", response_model=result_schemas.Tradeoff)
@needs_scope("read")
async def get_tradeoff(
    sweep: str,
    read: ConditionalReadDep,
    x: Annotated[str, Query(max_length=64, description="a metric, or number")],
    y: Annotated[str, Query(max_length=64, description="a metric, or number")],
    limit: Limit = 2000,
) -> Response:
    """The measured trials by two metrics, the best trade-offs between the two, and the constraints on either."""

    def names(row: Sweep) -> list[str]:
        return [name for name in plot_selection.full_axes(row, x, y) if name != plot_selection.TRIAL_NUMBER]

    def analyse(columns: Columns, row: Sweep) -> result_schemas.Tradeoff:
        across, up = plot_selection.full_axes(row, x, y)
        session = object_session(row)
        assert session is not None, "the sweep was read for this answer"
        return plot_selection.tradeoff(columns, row, across, up, limit, all_tied_with_the_front(session, row))

    return await _answer(read, sweep, names, analyse)


@router.get("/hypervolume", response_model=result_schemas.Hypervolume)
@needs_scope("read")
async def get_hypervolume(sweep: str, read: ConditionalReadDep) -> Response:
    """How the front grew, trial by trial: the dominated share of the space of objectives."""
    return await _answer(read, sweep, _objectives, hypervolume.history)


@router.get("/importance", response_model=result_schemas.Importance)
@needs_scope("read")
async def get_importance(sweep: str, read: ConditionalReadDep) -> Response:
    """How much each open parameter matters to each objective (PED-ANOVA), over at most 1,000 trials."""

    def names(row: Sweep) -> list[str]:
        return [*_objectives(row), *row.space.get("open_parameters", [])]

    return await _answer(read, sweep, names, importance.importance)


@router.get("/effect", response_model=result_schemas.Effect)
@needs_scope("read")
async def get_effect(
    sweep: str,
    parameter: Name,
    metric: Name,
    read: ConditionalReadDep,
) -> Response:
    """A metric's quartiles and best value by the values of one parameter."""

    def names(row: Sweep) -> list[str]:
        known_metrics = plot_selection.metrics_of(row)
        plot_selection.check_metric("metric", metric, known_metrics)
        if parameter not in (known := leaderboards.parameter_names(row)):
            detail = f"parameter={shown(parameter)} is not one of this sweep's"
            raise UnprocessableError.at("/parameter", detail, f"choose from {', '.join(known)}")
        return [parameter, known_metrics.resolve(metric)]

    def analyse(columns: Columns, row: Sweep) -> result_schemas.Effect:
        return effects.effect(columns, row, parameter, plot_selection.metrics_of(row).resolve(metric))

    return await _answer(read, sweep, names, analyse)


def _objectives(sweep: Sweep) -> list[str]:
    return [objective["metric"] for objective in sweep.objectives]
