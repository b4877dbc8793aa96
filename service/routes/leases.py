"""Workers claim trials here, and say what became of them."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.http.conditional_reads import Prefer, wait_seconds
from service.http.error_handlers import documented
from service.http.write_requests import WriteRequestDep
from service.leases import holders, queue, workers
from service.leases import schemas as lease_schemas
from service.leases.attempts import AttemptKey
from service.leases.claiming import renewed_answers
from service.leases.claiming.waiting import Claimer, WaitingClaim
from service.leases.row_locks import ChangesTrial, Claims, FinishesAndClaims, RenewsLease
from service.pruning import reports
from service.settings import MIB

router = APIRouter(prefix="/v1/leases", tags=["leases"], responses=documented(404), route_class=ScopedRoute)

MAX_FINISH_BYTES = 4 * MIB
"""A finish carries raw latency samples."""

Attempt = Annotated[int, Path(ge=1, le=2**31 - 1)]


_CLAIMED: schemas.Responses = {
    200: {
        "model": lease_schemas.Lease | lease_schemas.Leases,
        "description": "a lease; with `at_most`, one or more of them",
    },
    204: {"description": "nothing to claim now, or no slot of the worker is free"},
}


@router.post("", responses=_CLAIMED | documented(409))
@needs_scope("work")
async def claim_lease(
    body: lease_schemas.LeaseRequest, request: Request, call: WriteRequestDep, prefer: Prefer = None
) -> Response:
    """Claim the oldest trial for one of the worker's targets. With `Prefer: wait=N`, wait up to N seconds for one.

    With `at_most` claim several at once. A worker is given no more leases than it has slots. A claim that is sent again
    with its Idempotency-Key gets the lease that it was given, while that is held; of several, those that are held.
    """
    services, bound_to = call.services, call.caller.bound_to
    deadline = time.monotonic() + wait_seconds(prefer, services.settings.max_wait_seconds)
    if bound_to is not None:
        await services.read(lambda session: workers.check_reach(session, body.worker, bound_to))
    claimer = Claimer(body.worker, body.at_most or 1, deadline)

    async def claim() -> Response | None:
        return await call.passing_answer(
            lambda session: queue.answer_claim(session, body, services.settings.lease_seconds),
            renewed_answers.of_claim,
            needs=Claims(claimer.worker, claimer.at_most),
        )

    waiting = WaitingClaim(
        services.claim_lines,
        claimer,
        claim,
        request.is_disconnected,
        may_come_late=services.database.dialect != "sqlite",
    )
    answer = await waiting.result()
    return Response(status_code=204) if answer is None else answer


@router.post("/{trial}/{attempt}:heartbeat", response_model=lease_schemas.LeaseAnswer, responses=documented(409))
@needs_scope("work")
async def send_heartbeat(trial: str, attempt: Attempt, call: WriteRequestDep) -> Response:
    """Renew the lease."""
    seconds = call.services.settings.lease_seconds
    return await call.small_answer(
        lambda session: _answer(holders.heartbeat(session, trial, attempt, seconds), seconds), needs=RenewsLease(trial)
    )


@router.post("/{trial}/{attempt}:report", response_model=lease_schemas.LeaseAnswer, responses=documented(409))
@needs_scope("work")
async def send_report(trial: str, attempt: Attempt, body: lease_schemas.LeaseReport, call: WriteRequestDep) -> Response:
    """Say where the attempt is: its phase, progress, losses, metrics and log. Renews the lease.

    The answer may say that the metrics break a hardware constraint (`infeasible`), so that a worker need not judge, and
    at a rung that the training is not worth going on with (`prune`).
    """
    settings = call.services.settings

    def report(session: Session) -> lease_schemas.LeaseAnswer:
        keeps_artifacts = settings.artifacts != "none"
        instruction = reports.report(
            session, AttemptKey(trial, attempt), body, settings.lease_seconds, keeps_artifacts=keeps_artifacts
        )
        return _answer(instruction, settings.lease_seconds)

    return await call.small_answer(report, needs=ChangesTrial(trial))


def _answer(instruction: holders.Instruction, lease_seconds: float) -> lease_schemas.LeaseAnswer:
    return lease_schemas.LeaseAnswer(
        action=instruction.action,
        reason=instruction.reason,
        keep_training_state=instruction.keep_training_state,
        lease_seconds=lease_seconds,
    )


@router.post(
    "/{trial}/{attempt}:finish",
    response_model=lease_schemas.FinishedTrial,
    responses=documented(409, 413),
    max_body_size=MAX_FINISH_BYTES,
)
@needs_scope("work")
async def finish_attempt(
    trial: str, attempt: Attempt, body: lease_schemas.LeaseFinish, call: WriteRequestDep
) -> Response:
    """End the trial with its outcome and measurements. The same finish may be sent again; a stale attempt gets 409.

    With `claim` the answer has the worker's next lease, if there is something to claim now: one request less a trial.
    """
    if not body.claim:
        answer = await call.passing_answer(
            lambda session: lease_schemas.FinishedTrial(**holders.finish(session, trial, attempt, body).__dict__),
            renewed_answers.of_finish,
            needs=ChangesTrial(trial),
        )
        assert answer is not None, "a finish is answered or refused"
        return answer
    services, needs = call.services, FinishesAndClaims(trial)
    finish = queue.FinishThatClaims(trial, attempt, body, services.settings.lease_seconds)
    made: lease_schemas.FinishedTrial | None = None

    def finish_alone(session: Session) -> lease_schemas.FinishedTrial:
        nonlocal made
        (made,) = queue.finish_and_claim(session, [finish])
        return made

    if call.key is None:
        made = await services.submit_request(queue.finish_and_claim, finish, needs=needs)
        answer = Response(made.model_dump_json(), media_type="application/json")
    else:
        answer = await call.passing_answer(finish_alone, renewed_answers.of_finish, needs=needs)
        assert answer is not None, "a finish is answered or refused"
    if made is not None and made.lease is None and made.worker is not None:
        services.claim_lines.note_miss(made.worker)
    return answer


@router.post("/{trial}/{attempt}:release", response_model=lease_schemas.Trial, responses=documented(409))
@needs_scope("work")
async def release_attempt(
    trial: str, attempt: Attempt, body: lease_schemas.LeaseRelease, call: WriteRequestDep
) -> Response:
    """Give the trial back to the queue: the worker drains, or the attempt was killed from outside (`charge`)."""
    return await call.small_answer(
        lambda session: holders.release(session, trial, attempt, body), needs=ChangesTrial(trial)
    )
