"""A sweep's events as they happen (server-sent events)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common.notifications import sweep_topic
from service.common.states import ENDED_SWEEPS
from service.database.models import Sweep
from service.errors import NotFoundError
from service.events import events
from service.events import schemas as event_schemas
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.long_polling import WAIT_SECONDS

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], responses=documented(404), route_class=ScopedRoute)

BATCH = 500
_Sequence = Annotated[int, Query(ge=0, le=2**31 - 1, description="replay what came after this sequence")]
_LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=40, description="sent by a client that connects again")
]


_DATA = {
    "contentMediaType": "application/json",
    "contentSchema": event_schemas.Event.model_json_schema(mode="serialization"),
}
_STREAM = {"text/event-stream": {"itemSchema": {"properties": {"data": _DATA}, "required": ["data"]}}}
"""What the data of each item holds, which FastAPI cannot see in a route that makes its items itself."""


def _existing_sweep(sweep: str, services: ServicesDep) -> str:
    # Before the stream begins, where an error still has a status.
    if services.database.read(lambda session: session.get(Sweep, sweep)) is None:
        raise NotFoundError(f"there is no sweep {sweep}")
    return sweep


@router.get(
    "/{sweep}/events",
    response_class=EventSourceResponse,
    openapi_extra={"responses": {"200": {"content": _STREAM}}},
)
@needs_scope("read")
async def watch_sweep(
    sweep: Annotated[str, Depends(_existing_sweep)],
    services: ServicesDep,
    after: _Sequence = 0,
    last_event_id: _LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Send every event after `Last-Event-ID` (or `after`), then each as it happens; ends when the sweep has ended."""
    sequence = _resumed(after, last_event_id)
    topic = sweep_topic(sweep)
    while True:
        since = services.notifications.version(topic)
        batch, ended = await services.read(lambda session, after=sequence: _next_events(session, sweep, after))
        for event in batch:
            sequence = event.sequence
            yield ServerSentEvent(data=event, event=event.kind, id=str(event.sequence))
        if len(batch) == BATCH:
            continue
        if ended or services.notifications.is_stopping:
            return
        await services.notifications.wait(topic, WAIT_SECONDS, since=since)


def _next_events(session: Session, sweep_id: str, after: int) -> tuple[list[event_schemas.Event], bool]:
    """The next events, and whether no more will come; a sweep that was deleted has ended."""
    state = session.scalar(sa.select(Sweep.state).where(Sweep.id == sweep_id))
    rows = events.read(session, sweep_id, after, BATCH)
    return [events.to_schema(row) for row in rows], state is None or state in ENDED_SWEEPS


def _resumed(after: int, last_event_id: str | None) -> int:
    # What is not a sequence of ours replays all: a client must not miss anything because of it.
    if last_event_id is None:
        return after
    return int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10 else 0
