"""Sweeps are posted, listed, steered and deleted here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.common.paging import PageSize, PageToken, link_next
from service.common.priorities import MAX_PRIORITY, MIN_PRIORITY
from service.common.states import SweepState
from service.confirmation import confirmations
from service.database.models import Sweep
from service.fleet import queue_by_needs
from service.http import conditional_reads
from service.http.callers import CallerDep
from service.http.conditional_reads import ConditionalReadDep
from service.http.dependencies import Services, ServicesDep
from service.http.error_handlers import documented
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequest, WriteRequestDep
from service.scheduling.device_model import previews
from service.sweeps import annotation, budgets, documents, drafts, sweeps
from service.sweeps import schemas as sweep_schemas

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], responses=documented(404), route_class=ScopedRoute)

EXAMPLE: JsonObject = {
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
    "budget": {"trials": 30},
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
budget: {trials: 30}
"""

_BODY: JsonObject = {
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
    response_model=sweep_schemas.SweepDetail,
    openapi_extra=_BODY,
    responses={
        200: {
            "model": sweep_schemas.SweepPreview,
            "description": "validate_only: the document is good, nothing was stored",
        },
        **documented(403, 409, 413, 415, 422),
    },
)
@needs_scope("submit")
async def create_sweep(
    request: Request,
    call: WriteRequestDep,
    validate_only: Annotated[bool, Query(description="say what the document means, and store nothing")] = False,
    priority: Annotated[
        int | None,
        Query(
            ge=MIN_PRIORITY,
            le=MAX_PRIORITY,
            description="trials of sweeps with a higher one are given to workers first. Left out: 0, or what the "
            "project may use at most",
        ),
    ] = None,
    tag: Annotated[
        list[sweep_schemas.Tag],
        Query(max_length=sweep_schemas.MOST_TAGS, description="tags that the sweep has at once"),
    ] = [],  # noqa: B006
) -> Response:
    """Post a sweep document, as JSON or YAML. It is validated as a whole: the answer names everything that is wrong."""
    if not validate_only and (answered := await call.answered()) is not None:
        return answered
    body, content_type = await request.body(), request.headers.get("content-type")
    document = documents.read(body, content_type, max_bytes=call.services.settings.max_document_bytes)
    prepared = await prepare(call, document)
    if validate_only:
        alive_seconds = call.services.settings.worker_alive_seconds
        describe = partial(previews.preview, project=call.caller.project, alive_seconds=alive_seconds)
        return conditional_reads.json_response(await to_thread.run_sync(describe, call.services.database, prepared))
    source = documents.source_text(body, content_type)
    return await create_prepared(call, "sweep.create", prepared, priority, source, tag)


@router.get("", response_model=schemas.Page[sweep_schemas.Sweep])
@needs_scope("read")
def list_sweeps(
    request: Request,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    state: Annotated[list[SweepState], Query(description="only sweeps in one of these states")] = [],  # noqa: B006
    task: Annotated[str | None, Query(max_length=32, description="only sweeps of this task")] = None,
    name: Annotated[str | None, Query(max_length=200, description="only sweeps whose name holds this")] = None,
    tag: Annotated[str | None, Query(max_length=32, description="only sweeps with this tag")] = None,
    archived: Annotated[
        sweeps.Archived, Query(description="hide those that are archived, show them, or only them")
    ] = "hide",
    sort: Annotated[sweeps.Sort, Query(description="'-' turns it")] = "-created_at",
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> schemas.Page[sweep_schemas.Sweep]:
    """List sweeps, the newest first or as `sort` says. Sweeps that are posted meanwhile move no other off its page."""
    items, token = services.database.read(
        lambda session: sweeps.page(
            session,
            sweeps.SweepFilter(caller.lists, tuple(state), task, name, tag, archived, sort),
            page_size=page_size,
            page_token=page_token,
        )
    )
    link_next(request, response, token)
    return schemas.Page[sweep_schemas.Sweep](items=items, next_page_token=token)


@router.get("/{sweep}", response_model=sweep_schemas.SweepDetail, responses=conditional_reads.NOT_MODIFIED)
@needs_scope("read")
async def get_sweep(sweep: str, read: ConditionalReadDep) -> Response:
    """Read one sweep. With `If-None-Match` and `Prefer: wait=N`, wait for something to happen in it."""

    def load(session: Session) -> sweep_schemas.SweepDetail:
        return _shown(read.services, session, sweeps.get(session, sweep))

    return await read.answer_json(sweep, load)


@router.patch("/{sweep}", response_model=sweep_schemas.SweepDetail)
@needs_scope("submit")
async def annotate_sweep(sweep: str, body: sweep_schemas.Annotations, call: UnkeyedWriteRequestDep) -> Response:
    """Change a sweep's name, note or tags, or archive it: lists then leave it out. What is left out stays as it is."""
    return await _acted(
        call, "sweep.annotate", sweep, lambda session, sweep_id: annotation.annotate(session, sweep_id, body)
    )


@router.delete("/{sweep}", status_code=204, responses=documented(409))
@needs_scope("submit")
async def delete_sweep(sweep: str, call: UnkeyedWriteRequestDep) -> Response:
    """Delete a sweep that has ended, with its trials, events and confirmations."""

    def delete(session: Session) -> None:
        confirmations.delete_of_sweep(session, sweep)
        sweeps.delete(session, sweep)

    return await call.done("sweep.delete", delete, subject=sweep)


@router.post("/{sweep}:cancel", response_model=sweep_schemas.SweepDetail, responses=documented(409))
@needs_scope("submit")
async def cancel_sweep(sweep: str, call: WriteRequestDep) -> Response:
    """End a sweep: queued trials are cancelled, workers stop those that run."""
    return await _acted(call, "sweep.cancel", sweep, sweeps.cancel)


@router.post("/{sweep}:pause", response_model=sweep_schemas.SweepDetail, responses=documented(409))
@needs_scope("submit")
async def pause_sweep(sweep: str, call: WriteRequestDep) -> Response:
    """Let no worker claim more trials of the sweep; those that run go on. Its clock does not stop."""
    return await _acted(call, "sweep.pause", sweep, sweeps.pause)


@router.post("/{sweep}:resume", response_model=sweep_schemas.SweepDetail, responses=documented(409))
@needs_scope("submit")
async def resume_sweep(sweep: str, call: WriteRequestDep) -> Response:
    """Let a paused sweep go on."""
    return await _acted(call, "sweep.resume", sweep, sweeps.resume)


@router.post("/{sweep}:extend", response_model=sweep_schemas.SweepDetail, responses=documented(409))
@needs_scope("submit")
async def extend_sweep(sweep: str, body: sweep_schemas.BudgetExtension, call: WriteRequestDep) -> Response:
    """Add to the budget. A sweep that ended because of its budget goes on."""
    return await _acted(call, "sweep.extend", sweep, lambda session, sweep_id: budgets.extend(session, sweep_id, body))


@router.post("/{sweep}:prioritize", response_model=sweep_schemas.SweepDetail, responses=documented(403, 409))
@needs_scope("submit")
async def prioritize_sweep(sweep: str, body: sweep_schemas.PriorityChange, call: WriteRequestDep) -> Response:
    """Give a sweep that goes on another priority: its trials are executed before those of sweeps with a lower one.

    What runs already goes on. The sweep's project may limit how high it is.
    """
    return await _acted(
        call, "sweep.prioritize", sweep, lambda session, sweep_id: sweeps.prioritize(session, sweep_id, body.priority)
    )


@router.post(
    "/{sweep}:clone", status_code=201, response_model=sweep_schemas.SweepDetail, responses=documented(409, 422)
)
@needs_scope("submit")
async def clone_sweep(sweep: str, call: WriteRequestDep) -> Response:
    """Post the sweep's document again, with its tags. What was measured before is reused, unless the document says
    otherwise."""
    if (answered := await call.answered()) is not None:
        return answered
    cloned, source = await call.services.read(lambda session: ((row := sweeps.get(session, sweep)), row.source))
    prepared = await prepare(call, cloned.document, drafts.stored_starts(cloned))
    return await create_prepared(call, "sweep.clone", prepared, source=source, tags=cloned.tags)


async def prepare(
    call: WriteRequest, document: drafts.Given, starts: drafts.Starts = drafts.NO_STARTS
) -> drafts.ValidatedDocument:
    """A document that was found good. Raises InvalidDocumentError."""
    return await call.services.validation.prepare(document, call.project, call.caller_is_gone, starts)


async def create_prepared(
    call: WriteRequest,
    action: str,
    prepared: drafts.ValidatedDocument,
    priority: int | None = None,
    source: str | None = None,
    tags: Sequence[str] = (),
) -> Response:
    """Store a sweep, and answer with it and its address. `source`: the text that its document was written as."""
    # Not in the transaction: on SQLite nobody else writes until it ends.
    notes = await to_thread.run_sync(prepared.notes)

    def insert(session: Session) -> sweep_schemas.SweepDetail:
        sweep = sweeps.insert(session, prepared, project=call.project, priority=priority, source=source, tags=tags)
        return _shown(call.services, session, sweep).model_copy(update={"notes": notes})

    return await call.answer(action, insert, status=201)


async def _acted(call: WriteRequest, action: str, sweep: str, act: Callable[[Session, str], Sweep]) -> Response:
    return await call.answer(action, lambda session: _shown(call.services, session, act(session, sweep)), subject=sweep)


def _shown(services: Services, session: Session, sweep: Sweep) -> sweep_schemas.SweepDetail:
    session.flush()
    waiting = queue_by_needs.wait_of(session, sweep, services.settings.worker_alive_seconds)
    return sweeps.detail(session, sweep).model_copy(update={"waiting": waiting})
