"""/v1/sweeps/{id}:remeasure and :judge: does a trial keep its limits, measured here and now?"""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.assertions import judgement, remeasurement
from service.assertions.schemas import Judgement, JudgementRequest, RemeasurementRequest
from service.auth.scopes import ScopedRoute, needs_scope
from service.http.error_handlers import documented
from service.http.write_requests import WriteRequestDep
from service.routes.sweeps import create_prepared, prepare
from service.sweeps import schemas as sweep_schemas

router = APIRouter(
    prefix="/v1/sweeps", tags=["assertions"], responses=documented(404, 409, 422), route_class=ScopedRoute
)


@router.post("/{sweep}:remeasure", status_code=201, response_model=sweep_schemas.SweepDetail)
@needs_scope("submit")
async def remeasure_trial(sweep: str, body: RemeasurementRequest, call: WriteRequestDep) -> Response:
    """Measure a trial anew: a sweep whose trials are builds of its configuration, each in a fresh process.

    They differ in their seeds, and are trained a single step; as the trial was where a limit is on what it learnt.
    Follow it like any sweep, `:extend` it for more builds, `:judge` it.
    """
    if (answered := await call.answered()) is not None:
        return answered
    document = await call.services.read(
        lambda session: remeasurement.document_of(
            session, sweep, number=body.trial, texts=body.limits, builds=body.builds
        )
    )
    return await create_prepared(call, "sweep.remeasure", await prepare(call, document))


@router.post("/{sweep}:judge", response_model=Judgement)
@needs_scope("submit")
async def judge_sweep(sweep: str, body: JudgementRequest, call: WriteRequestDep) -> Response:
    """Whether the builds of a sweep keep limits, those that are complete until now. The sweep stays as it is.

    `measured` of the answer is the `baseline` of later ones. 409 `baseline-mismatch` where a baseline is of another
    device, runtime, version of results or shape.
    """
    if (answered := await call.answered()) is not None:
        return answered
    # It may take a second: not in the transaction that keeps the answer, while nobody else writes.
    found = await call.services.read(lambda session: judgement.judge(session, sweep, body))
    return await call.answer("sweep.judge", lambda _: found, subject=sweep)
