"""Workers claim trials here, and say what became of them."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service import queue, schemas, workers
from service.access import GivenCaller
from service.problems import documented
from service.routes.conditional import Prefer, wait_seconds
from service.services import GivenServices
from service.settings import MIB

router = APIRouter(prefix="/v1/leases", tags=["leases"], responses=documented(404))

MAX_FINISH_BYTES = 4 * MIB
"""A finish carries raw latency samples."""

Attempt = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("", responses={200: {"model": schemas.Lease}, 204: {"description": "nothing to claim now"}})
async def claim_lease(
    body: schemas.LeaseRequest, request: Request, services: GivenServices, caller: GivenCaller, prefer: Prefer = None
) -> Response:
    """Claim the oldest trial for one of the worker's targets. With `Prefer: wait=N`, wait up to N seconds for one."""
    settings, notifications = services.settings, services.notifications
    deadline = time.monotonic() + wait_seconds(prefer, settings.max_wait_seconds)
    if caller.bound_to is not None:
        await services.read(lambda session: workers.check_reach(session, body.worker, caller.bound_to))
    worth_a_claim = True
    while True:
        since = notifications.version(queue.TOPIC)
        if worth_a_claim:
            lease = await services.submit(lambda session: queue.claim(session, body.worker, settings.lease_seconds))
            if lease is not None:
                return Response(lease.model_dump_json(), media_type="application/json")
        left = deadline - time.monotonic()
        if left <= 0:
            return Response(status_code=204)
        await notifications.wait(queue.TOPIC, min(left, settings.recheck_seconds), since=since)
        if await request.is_disconnected():
            # Nobody would execute what is claimed now.
            return Response(status_code=204)
        worth_a_claim = await services.read(lambda session: queue.has_claimable(session, body.worker))


@router.post("/{trial}/{attempt}:heartbeat", responses=documented(409))
async def send_heartbeat(trial: str, attempt: Attempt, services: GivenServices) -> schemas.LeaseAnswer:
    """Renew the lease."""
    seconds = services.settings.lease_seconds
    action: queue.Action = await services.submit(lambda session: queue.heartbeat(session, trial, attempt, seconds))
    return schemas.LeaseAnswer(action=action, lease_seconds=seconds)


@router.post("/{trial}/{attempt}:report", responses=documented(409))
async def send_report(
    trial: str, attempt: Attempt, body: schemas.LeaseReport, services: GivenServices
) -> schemas.LeaseAnswer:
    """Say where the attempt is: its phase, progress, losses and log. Renews the lease."""
    seconds = services.settings.lease_seconds
    action: queue.Action = await services.submit(lambda session: queue.report(session, trial, attempt, body, seconds))
    return schemas.LeaseAnswer(action=action, lease_seconds=seconds)


@router.post("/{trial}/{attempt}:finish", responses=documented(409, 413), max_body_size=MAX_FINISH_BYTES)
async def finish_attempt(
    trial: str, attempt: Attempt, body: schemas.LeaseFinish, services: GivenServices
) -> schemas.Trial:
    """End the trial with its outcome and measurements. The same finish may be sent again; a stale attempt gets 409."""
    return await services.submit(lambda session: queue.finish(session, trial, attempt, body))


@router.post("/{trial}/{attempt}:release", responses=documented(409))
async def release_attempt(
    trial: str, attempt: Attempt, body: schemas.LeaseRelease, services: GivenServices
) -> schemas.Trial:
    """Give the trial back to the queue: the worker drains, or the attempt was killed from outside (`charge`)."""
    return await services.submit(lambda session: queue.release(session, trial, attempt, body))
