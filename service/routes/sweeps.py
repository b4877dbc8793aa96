"""Sweeps are posted, listed, steered and deleted here."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from service import documents, estimates, idempotency, schemas, sweeps
from service.idempotency import Answer, IdempotencyKeyHeader
from service.models import Sweep
from service.paging import PageSize, PageToken, link_next
from service.problems import documented
from service.routes import conditional
from service.routes.conditional import IfNoneMatch, Prefer
from service.services import GivenServices, Services

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], responses=documented(404))

EXAMPLE: dict[str, Any] = {
    "name": "small-decoder",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"min": 2, "max": 6},
        "hidden_size": {"values": [64, 128, 192]},
        "attention": {"num_attention_heads": {"values": [2, 4]}},
        "mlp": {"kind": {"values": ["MLP", "GatedMLP"]}},
    },
    "training": {"steps": 300, "batch_size": 16, "learning_rate": {"min": 1e-4, "max": 3e-3, "log": True}},
    "inference": {"batch_size": 1, "sequence_length": 64},
    "objectives": [
        {"metric": "validation_loss", "goal": "minimize"},
        {"metric": "latency_ms_p50", "goal": "minimize"},
    ],
    "constraints": ["parameter_count <= 2e6"],
    "budget": {"trials": 30, "parallel": 2},
}

EXAMPLE_YAML = """\
name: small-decoder
task: causal_lm
dataset: python-topics
model:
  num_layers: {min: 2, max: 6}
  hidden_size: {values: [64, 128, 192]}
  attention: {num_attention_heads: {values: [2, 4]}}
  mlp: {kind: {values: [MLP, GatedMLP]}}
training: {steps: 300, batch_size: 16, learning_rate: {min: 1.0e-4, max: 3.0e-3, log: true}}
inference: {batch_size: 1, sequence_length: 64}
objectives:
  - {metric: validation_loss, goal: minimize}
  - {metric: latency_ms_p50, goal: minimize}
constraints: ["parameter_count <= 2e6"]
budget: {trials: 30, parallel: 2}
"""

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A sweep document. docs/sweep-document.md says what stands in it.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": EXAMPLE},
            "application/yaml": {"schema": {"type": "string"}, "example": EXAMPLE_YAML},
        },
    }
}


@router.post(
    "",
    status_code=201,
    response_model=schemas.SweepDetail,
    openapi_extra=_BODY,
    responses={
        200: {"model": schemas.SweepPreview, "description": "validate_only: the document is good, nothing was stored"},
        **documented(409, 413, 415, 422),
    },
)
async def create_sweep(
    request: Request,
    services: GivenServices,
    validate_only: Annotated[bool, Query(description="say what the document means, and store nothing")] = False,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Post a sweep document, as JSON or YAML. It is validated as a whole: the answer names everything that is wrong."""
    body, content_type = await request.body(), request.headers.get("content-type")
    document = documents.read(body, content_type, max_bytes=services.settings.max_document_bytes)
    prepared = await to_thread.run_sync(sweeps.prepare, services.database, document)
    if validate_only:
        cost = await services.read(lambda session: estimates.estimate(session, prepared))
        return conditional.json_response(prepared.preview().model_copy(update={"estimate": cost}))
    digest = idempotency.request_hash("POST /v1/sweeps", content_type or "", body)
    return await _created(services, prepared, idempotency_key, digest)


@router.get("", response_model=schemas.Page[schemas.Sweep])
def list_sweeps(
    request: Request,
    response: Response,
    services: GivenServices,
    state: Annotated[list[schemas.SweepState], Query(description="only sweeps in one of these states")] = [],  # noqa: B006
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> schemas.Page[schemas.Sweep]:
    """List sweeps, the newest first."""
    items, token = services.database.read(
        lambda session: sweeps.page(session, states=state, page_size=page_size, page_token=page_token)
    )
    link_next(request, response, token)
    return schemas.Page[schemas.Sweep](items=items, next_page_token=token)


@router.get("/{sweep}", response_model=schemas.SweepDetail, responses=conditional.NOT_MODIFIED)
async def get_sweep(
    sweep: str,
    request: Request,
    services: GivenServices,
    if_none_match: IfNoneMatch = None,
    prefer: Prefer = None,
) -> Response:
    """Read one sweep. With `If-None-Match` and `Prefer: wait=N`, wait for something to happen in it."""

    def load(session: Session) -> schemas.SweepDetail:
        return sweeps.detail(session, sweeps.get(session, sweep))

    return await conditional.of_sweep(request, services, sweep, load, conditional.json_response)


@router.delete("/{sweep}", status_code=204, responses=documented(409))
def delete_sweep(sweep: str, services: GivenServices) -> None:
    """Delete a sweep that has ended, with its trials and events."""
    services.database.write(lambda session: sweeps.delete(session, sweep))


@router.post("/{sweep}:cancel", responses=documented(409))
def cancel_sweep(sweep: str, services: GivenServices) -> schemas.SweepDetail:
    """End a sweep: queued trials are cancelled, workers stop those that run."""
    return services.database.write(lambda session: _shown(session, sweeps.cancel(session, sweep)))


@router.post("/{sweep}:pause", responses=documented(409))
def pause_sweep(sweep: str, services: GivenServices) -> schemas.SweepDetail:
    """Let no worker claim more trials of the sweep; those that run go on. Its clock does not stop."""
    return services.database.write(lambda session: _shown(session, sweeps.pause(session, sweep)))


@router.post("/{sweep}:resume", responses=documented(409))
def resume_sweep(sweep: str, services: GivenServices) -> schemas.SweepDetail:
    """Let a paused sweep go on."""
    return services.database.write(lambda session: _shown(session, sweeps.resume(session, sweep)))


@router.post("/{sweep}:extend", responses=documented(409))
def extend_sweep(sweep: str, body: schemas.BudgetExtension, services: GivenServices) -> schemas.SweepDetail:
    """Add to the budget. A sweep that ended because of its budget goes on."""
    return services.database.write(lambda session: _shown(session, sweeps.extend(session, sweep, body)))


@router.post("/{sweep}:clone", status_code=201, response_model=schemas.SweepDetail, responses=documented(409, 422))
async def clone_sweep(
    sweep: str, request: Request, services: GivenServices, idempotency_key: IdempotencyKeyHeader = None
) -> Response:
    """Post the sweep's document again. What was measured before is reused, unless the document says otherwise."""
    document = (await services.read(lambda session: sweeps.get(session, sweep))).document
    prepared = await to_thread.run_sync(sweeps.prepare, services.database, document)
    return await _created(services, prepared, idempotency_key, idempotency.request_hash(request.url.path))


async def _created(services: Services, prepared: sweeps.Prepared, key: str | None, digest: str) -> Response:
    def create(session: Session) -> Answer:
        def make() -> Answer:
            return 201, _shown(session, sweeps.insert(session, prepared)).model_dump(mode="json")

        return idempotency.once(session, key, digest, make)

    status, body = await services.write(create)
    return JSONResponse(body, status, headers={"Location": f"/v1/sweeps/{body['id']}"})


def _shown(session: Session, sweep: Sweep) -> schemas.SweepDetail:
    session.flush()
    return sweeps.detail(session, sweep)
