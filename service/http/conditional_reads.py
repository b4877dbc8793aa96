"""Conditional reads: `ETag`, `If-None-Match`, and `Prefer: wait=N` that holds an unchanged answer back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable
from typing import Annotated, TypeVar

import sqlalchemy as sa
from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.common.notifications import sweep_topic
from service.common.schemas import Responses
from service.database.models import Sweep
from service.errors import NotFoundError
from service.http.dependencies import Services, ServicesDep
from service.http.long_polling import WAIT_SECONDS

T = TypeVar("T")
V = TypeVar("V")

IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=2000, description="ETags that the caller has: 304 if current")
]
Prefer = Annotated[
    str | None,
    Header(alias="Prefer", max_length=200, description="`wait=N`: hold the answer up to N seconds until there is news"),
]

NOT_MODIFIED: Responses = {304: {"description": "the caller has this version"}}
"""For `responses=` of a conditional read."""

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


def wait_seconds(prefer: str | None, most: float) -> float:
    """The seconds that a `Prefer` header asks to wait (RFC 7240), bounded; 0 without it."""
    match = _WAIT.search(prefer or "")
    return 0.0 if match is None else min(float(match.group(1)), most)


def json_response(model: BaseModel) -> Response:
    """The response of a schema."""
    return Response(model.model_dump_json(), media_type="application/json")


def sweep_version(session: Session, sweep_id: str) -> int:
    """The sequence of the sweep's newest event. Raises NotFoundError."""
    version = session.scalar(sa.select(Sweep.event_counter).where(Sweep.id == sweep_id))
    if version is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    return version


def ranked_version(session: Session, sweep_id: str) -> int:
    """A number that grows with each event and each time that the scheduler ranked what ended. Raises NotFoundError."""
    ranked = session.scalar(sa.select(Sweep.event_counter + Sweep.scheduled_sequence).where(Sweep.id == sweep_id))
    if ranked is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    return ranked


class ConditionalRead:
    """A GET whose content changes only with the events of a sweep."""

    def __init__(self, request: Request, services: Services, if_none_match: str | None, prefer: str | None) -> None:
        self.request = request
        self.services = services
        self._known = (
            None if if_none_match is None else {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        )
        self._wait_seconds = wait_seconds(prefer, services.settings.max_wait_seconds)

    async def answer(
        self,
        sweep_id: str,
        load: Callable[[Session], T],
        render: Callable[[T], Response],
        *,
        version_of: Callable[[Session, str], int] = sweep_version,
    ) -> Response:
        """Answer with what `load` reads, as `render` makes a response of it.

        The ETag is the sweep's version, or what `version_of` says. 304 without a body if the caller has that
        version. With `Prefer: wait=N` the answer is held until the version is another one, at most N seconds. Raises
        NotFoundError.
        """
        request, services = self.request, self.services
        deadline = time.monotonic() + self._wait_seconds
        woken = False

        async def read(what: Hashable, since: int, fn: Callable[[Session], V]) -> V:
            if not woken:
                return await services.read(fn)
            # A thousand callers may have been woken by the same event.
            return await services.shared_reads.read((sweep_id, what, since), lambda: services.read(fn))

        while True:
            since = services.notifications.version(sweep_topic(sweep_id))
            version = await read(version_of, since, lambda session: version_of(session, sweep_id))
            if not self._is_current(_etag(version)):
                break
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0 or services.notifications.is_stopping or await request.is_disconnected():
                return _marked(Response(status_code=304), version)
            woken = await services.notifications.wait(
                sweep_topic(sweep_id), min(seconds_left, WAIT_SECONDS), since=since
            )
        shown = (request.url.path, request.url.query, request.headers.get("accept"))
        version, content = await read(shown, since, lambda session: (version_of(session, sweep_id), load(session)))
        return _marked(render(content), version)

    async def answer_json(self, sweep_id: str, load: Callable[[Session], BaseModel]) -> Response:
        """Answer with the schema that `load` reads."""
        return await self.answer(sweep_id, load, json_response)

    def _is_current(self, etag: str) -> bool:
        """True when the caller has this ETag already (weak comparison, RFC 9110)."""
        return self._known is not None and (etag in self._known or "*" in self._known)


async def _conditional_read(
    request: Request, services: ServicesDep, if_none_match: IfNoneMatch = None, prefer: Prefer = None
) -> ConditionalRead:
    return ConditionalRead(request, services, if_none_match, prefer)


ConditionalReadDep = Annotated[ConditionalRead, Depends(_conditional_read)]
"""The type of a route's parameter that answers with an ETag."""


def _etag(version: int) -> str:
    return f'"{version}"'


def _marked(response: Response, version: int) -> Response:
    response.headers["ETag"] = _etag(version)
    response.headers["Cache-Control"] = "private, no-cache"
    return response
