"""Trials are read here, and promoted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.common.paging import PageSize, PageToken, link_next
from service.common.states import TrialState
from service.database.models import Trial
from service.http import conditional_reads
from service.http.conditional_reads import ConditionalReadDep
from service.http.error_handlers import documented
from service.http.write_requests import WriteRequestDep
from service.leases import schemas as lease_schemas
from service.leases import trials
from service.promotion import promotion

router = APIRouter(prefix="/v1", tags=["trials"], responses=documented(404), route_class=ScopedRoute)


@router.get(
    "/sweeps/{sweep}/trials", response_model=schemas.Page[lease_schemas.Trial], responses=conditional_reads.NOT_MODIFIED
)
@needs_scope("read")
async def list_trials(
    sweep: str,
    read: ConditionalReadDep,
    state: Annotated[list[TrialState], Query(description="only trials in one of these states")] = [],  # noqa: B006
    page_size: PageSize = 100,
    page_token: PageToken = None,
) -> Response:
    """List a sweep's trials in the order of their numbers."""

    def load(session: Session) -> schemas.Page[lease_schemas.Trial]:
        rows, token = trials.page(session, sweep, states=state, page_size=page_size, page_token=page_token)
        return schemas.Page[lease_schemas.Trial](items=[trials.to_schema(row) for row in rows], next_page_token=token)

    def render(page: schemas.Page[lease_schemas.Trial]) -> Response:
        response = conditional_reads.json_response(page)
        link_next(read.request, response, page.next_page_token)
        return response

    return await read.answer(sweep, load, render)


@router.get(
    "/sweeps/{sweep}/trials/{number}",
    response_model=lease_schemas.TrialDetail,
    responses=conditional_reads.NOT_MODIFIED,
)
@needs_scope("read")
async def get_trial_by_number(
    sweep: str, number: Annotated[int, Path(ge=0, le=2**31 - 1)], read: ConditionalReadDep
) -> Response:
    """Read one trial of a sweep by its number."""

    def load(session: Session) -> lease_schemas.TrialDetail:
        return trials.detail(session, trials.get_by_number(session, sweep, number))

    return await read.answer_json(sweep, load)


@router.get("/trials/{trial}", response_model=lease_schemas.TrialDetail, responses=conditional_reads.NOT_MODIFIED)
@needs_scope("read")
async def get_trial(trial: str, read: ConditionalReadDep) -> Response:
    """Read one trial: parameters, phases, measurements, attempts, losses, log. Its version is its sweep's."""

    def load(session: Session) -> lease_schemas.TrialDetail:
        return trials.detail(session, trials.get(session, trial))

    row: Trial = await read.services.read(lambda session: trials.get(session, trial))
    return await read.answer_json(row.sweep_id, load)


@router.post("/trials/{trial}:promote", response_model=lease_schemas.TrialDetail, responses=documented(409))
@needs_scope("submit")
async def promote_trial(trial: str, call: WriteRequestDep) -> Response:
    """Train a trial that a pruner has stopped to its end, from where it was stopped; nothing stops it again.

    A sweep that was complete goes on for it. The trial counts as one of its budget, as it did.
    """

    def promote(session: Session) -> lease_schemas.TrialDetail:
        return trials.detail(session, promotion.promote(session, trial))

    return await call.answer("trial.promote", promote, subject=trial)
