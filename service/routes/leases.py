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
from service.leases.claiming.line import NEVER
from service.leases.row_locks import ChangesTrial, Claims, FinishesAndClaims, RenewsLease
from service.pruning import decisions, promoted
from service.settings import MIB

router = APIRouter(prefix="/v1/leases", tags=["leases"], responses=documented(404), route_class=ScopedRoute)

CLAIMS_IN_A_ROW = 3
"""How often a claim that comes too late is made again before it waits for something new. On SQLite, with one writer,
none comes too late."""

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
    settings, notifications = services.settings, services.notifications
    deadline = time.monotonic() + wait_seconds(prefer, settings.max_wait_seconds)
    if bound_to is not None:
        await services.read(lambda session: workers.check_reach(session, body.worker, bound_to))
    lines, at_most = services.claim_lines, body.at_most or 1
    in_a_row = 1 if services.database.dialect == "sqlite" else CLAIMS_IN_A_ROW
    claims, is_released = in_a_row, False
    # A finish has just looked for the worker.
    claimed_at = NEVER if lines.take_vain(body.worker) and deadline > time.monotonic() else None
    while True:
        if claimed_at is None:
            claimed_at = notifications.version(queue.TOPIC)
            answer = await call.passing_answer(
                lambda session: _claimed(session, body, settings.lease_seconds),
                _held_of_claim,
                needs=Claims(body.worker, at_most),
            )
            if answer is not None:
                return answer
            if is_released:
                lines.pass_on()
            claims -= 1
            if claims:
                # Another process may have taken what this one saw: there may be more, in another sweep.
                claimed_at = NEVER
        left = deadline - time.monotonic()
        if left <= 0 or notifications.is_stopping:
            return Response(status_code=204)
        is_released = await lines.wait(body.worker, at_most, left, claimed_at)
        if not is_released:
            return Response(status_code=204)
        if await request.is_disconnected():
            # Nobody would execute what is claimed now.
            lines.pass_on()
            return Response(status_code=204)
        claims, claimed_at = claims or in_a_row, None


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
    seconds = call.services.settings.lease_seconds

    def report(session: Session) -> lease_schemas.LeaseAnswer:
        instruction = holders.report(session, trial, attempt, body, seconds)
        if instruction.action == "continue" and body.losses:
            reached = max(point.step for point in body.losses)
            pruned = decisions.decide(session, trial, attempt, reached)
            if pruned is not None:
                keeps = promoted.is_state_wanted(session, trial, call.services.settings.artifacts != "none")
                answer = _answer(holders.Instruction("prune", pruned), seconds)
                return answer.model_copy(update={"keep_training_state": keeps})
        return _answer(instruction, seconds)

    return await call.small_answer(report, needs=ChangesTrial(trial))


def _answer(instruction: holders.Instruction, lease_seconds: float) -> lease_schemas.LeaseAnswer:
    return lease_schemas.LeaseAnswer(action=instruction.action, reason=instruction.reason, lease_seconds=lease_seconds)


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
            _held_of_finish,
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
        answer = await call.passing_answer(finish_alone, _held_of_finish, needs=needs)
        assert answer is not None, "a finish is answered or refused"
    if made is not None and made.lease is None and made.worker is not None:
        services.claim_lines.note_vain(made.worker)
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


def _claimed(
    session: Session, body: lease_schemas.LeaseRequest, lease_seconds: float
) -> lease_schemas.Lease | lease_schemas.Leases | None:
    if body.at_most is None:
        return queue.claim(session, body.worker, lease_seconds)
    leases = queue.claim_several(session, body.worker, lease_seconds, body.at_most)
    return lease_schemas.Leases(leases=leases) if leases else None


def _held_of_claim(session: Session, answer: schemas.JsonObject) -> schemas.JsonObject | None:
    """What the worker still holds of the answer to a claim."""
    if "leases" not in answer:
        return answer if _is_held(session, answer) else None
    held = [lease for lease in answer["leases"] if _is_held(session, lease)]
    return {"leases": held} if held else None


def _held_of_finish(session: Session, answer: schemas.JsonObject) -> schemas.JsonObject:
    """The answer to a finish, with the lease that it gave while that is held."""
    lease = answer.get("lease")
    return answer | {"lease": lease if lease is not None and _is_held(session, lease) else None}


def _is_held(session: Session, lease: schemas.JsonObject) -> bool:
    return holders.is_held(session, lease["trial"], lease["attempt"])
