"""Workers claim trials here, and say what became of them."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.auth.scopes import ScopedRoute, needs_scope
from service.http.conditional_reads import Prefer, wait_seconds
from service.http.error_handlers import documented
from service.http.write_requests import WriteRequestDep
from service.leases import holders, queue, workers
from service.leases import schemas as lease_schemas
from service.leases.row_locks import ChangesTrial, Claims, RenewsLease
from service.settings import MIB

router = APIRouter(prefix="/v1/leases", tags=["leases"], responses=documented(404), route_class=ScopedRoute)

CLAIMS_IN_A_ROW = 3
"""How often a claim that comes too late is made again before it waits for something new."""

MAX_FINISH_BYTES = 4 * MIB
"""A finish carries raw latency samples."""

Attempt = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post(
    "", responses={200: {"model": lease_schemas.Lease}, 204: {"description": "nothing to claim now"}} | documented(409)
)
@needs_scope("work")
async def claim_lease(
    body: lease_schemas.LeaseRequest, request: Request, call: WriteRequestDep, prefer: Prefer = None
) -> Response:
    """Claim the oldest trial for one of the worker's targets. With `Prefer: wait=N`, wait up to N seconds for one.

    A claim that is sent again with its Idempotency-Key gets the lease that it was given, while that is held.
    """
    services, bound_to = call.services, call.caller.bound_to
    settings, notifications = services.settings, services.notifications
    deadline = time.monotonic() + wait_seconds(prefer, settings.max_wait_seconds)
    if bound_to is not None:
        await services.read(lambda session: workers.check_reach(session, body.worker, bound_to))
    claims = CLAIMS_IN_A_ROW
    while True:
        since = notifications.version(queue.TOPIC)
        if claims:
            answer = await call.claim_answer(
                lambda session: queue.claim(session, body.worker, settings.lease_seconds),
                holders.is_held,
                needs=Claims(body.worker),
            )
            if answer is not None:
                return answer
            claims -= 1
            # Another process may have taken what this one saw: there may be more, in another sweep.
            if claims and await services.read(lambda session: queue.has_claimable(session, body.worker)):
                continue
        left = deadline - time.monotonic()
        if left <= 0 or notifications.is_stopping:
            return Response(status_code=204)
        await notifications.wait(queue.TOPIC, min(left, settings.recheck_seconds), since=since)
        if await request.is_disconnected():
            # Nobody would execute what is claimed now.
            return Response(status_code=204)
        worth_a_claim = await services.read(lambda session: queue.has_claimable(session, body.worker))
        claims = CLAIMS_IN_A_ROW if worth_a_claim else 0


@router.post("/{trial}/{attempt}:heartbeat", response_model=lease_schemas.LeaseAnswer, responses=documented(409))
@needs_scope("work")
async def send_heartbeat(trial: str, attempt: Attempt, call: WriteRequestDep) -> Response:
    """Renew the lease."""
    seconds = call.services.settings.lease_seconds
    return await call.small_answer(
        lambda session: lease_schemas.LeaseAnswer(
            action=holders.heartbeat(session, trial, attempt, seconds), lease_seconds=seconds
        ),
        needs=RenewsLease(trial),
    )


@router.post("/{trial}/{attempt}:report", response_model=lease_schemas.LeaseAnswer, responses=documented(409))
@needs_scope("work")
async def send_report(trial: str, attempt: Attempt, body: lease_schemas.LeaseReport, call: WriteRequestDep) -> Response:
    """Say where the attempt is: its phase, progress, losses and log. Renews the lease."""
    seconds = call.services.settings.lease_seconds
    return await call.small_answer(
        lambda session: lease_schemas.LeaseAnswer(
            action=holders.report(session, trial, attempt, body, seconds), lease_seconds=seconds
        ),
        needs=ChangesTrial(trial),
    )


@router.post(
    "/{trial}/{attempt}:finish",
    response_model=lease_schemas.Trial,
    responses=documented(409, 413),
    max_body_size=MAX_FINISH_BYTES,
)
@needs_scope("work")
async def finish_attempt(
    trial: str, attempt: Attempt, body: lease_schemas.LeaseFinish, call: WriteRequestDep
) -> Response:
    """End the trial with its outcome and measurements. The same finish may be sent again; a stale attempt gets 409."""
    return await call.small_answer(
        lambda session: holders.finish(session, trial, attempt, body), needs=ChangesTrial(trial)
    )


@router.post("/{trial}/{attempt}:release", response_model=lease_schemas.Trial, responses=documented(409))
@needs_scope("work")
async def release_attempt(
    trial: str, attempt: Attempt, body: lease_schemas.LeaseRelease, call: WriteRequestDep
) -> Response:
    """Give the trial back to the queue: the worker drains, or the attempt was killed from outside (`charge`)."""
    return await call.small_answer(
        lambda session: holders.release(session, trial, attempt, body), needs=ChangesTrial(trial)
    )
