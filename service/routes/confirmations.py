"""/v1/sweeps/{id}:confirm and /confirmations: further seeds for the front's candidates, scored on the test split."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.confirmation import confirmations, results
from service.confirmation.schemas import Confirmation, ConfirmationRequest, Confirmations
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.write_requests import WriteRequestDep
from service.recommendation.recommend import preferences_of, recommended_trial
from service.routes.recommendations import Prefer, Weight, Within
from service.sweeps import sweeps

ConfirmationRequestBody = Annotated[ConfirmationRequest | None, Body()]

router = APIRouter(prefix="/v1/sweeps", tags=["confirmations"], responses=documented(404), route_class=ScopedRoute)


@router.post("/{sweep}:confirm", status_code=201, response_model=Confirmation, responses=documented(409, 422))
@needs_scope("submit")
async def confirm_sweep(sweep: str, call: WriteRequestDep, body: ConfirmationRequestBody = None) -> Response:
    """Train the front's candidates again with further seeds, and score them on the test split that no sweep has seen.

    Workers execute it like a sweep: follow it at /v1/sweeps/{id of the confirmation}. 409 while the sweep goes on, and
    where its dataset was registered without a test split.
    """
    wanted = body or ConfirmationRequest()
    settings = call.services.settings

    def make(session: Session) -> Confirmation:
        row = confirmations.create(
            session,
            sweep,
            seeds=wanted.seeds,
            candidates=wanted.candidates,
            numbers=wanted.trials,
            preferences=wanted.preferences,
            max_attempts=settings.max_attempts,
            alive_seconds=settings.worker_alive_seconds,
        )
        parent = sweeps.get(session, sweep)
        return results.to_schema(
            session, row, recommended_trial(session, parent, preferences_of(parent, **wanted.preferences))
        )

    response = await call.answer("sweep.confirm", make, status=201, subject=sweep)
    response.headers["Location"] = f"/v1/sweeps/{sweep}/confirmations"
    return response


@router.get("/{sweep}/confirmations")
@needs_scope("read")
def list_confirmations(
    sweep: str, services: ServicesDep, prefer: Prefer = None, within: Within = None, weight: Weight = None
) -> Confirmations:
    """A sweep's confirmations with what they found so far, the newest first.

    `recommended` marks the trial that the recommendation with the same wishes names.
    """

    def read(session: Session) -> Confirmations:
        row = sweeps.get(session, sweep)
        wishes = preferences_of(row, prefer=prefer or (), within=within or (), weight=weight or ())
        recommended = recommended_trial(session, row, wishes)
        items = [results.to_schema(session, each, recommended) for each in confirmations.of_sweep(session, row.id)]
        return Confirmations(sweep=row.id, items=items)

    return services.database.read(read)
