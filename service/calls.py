"""Requests that change something: carried out at most once a key, recorded in the audit, all in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service import audit, idempotency
from service.access import Caller, get_caller
from service.idempotency import Answer, IdempotencyKeyHeader
from service.services import GivenServices, Services


class Call:
    """One request that changes something, made by a caller."""

    def __init__(self, request: Request, services: Services, caller: Caller, key: str | None) -> None:
        self.caller = caller
        self.services = services
        self._request = request
        self._key = key

    @property
    def project(self) -> str:
        return self.caller.project

    async def answer(
        self,
        action: str,
        make: Callable[[Session], BaseModel],
        *,
        status: int = 200,
        subject: str | None = None,
        parts: tuple[bytes | str, ...] | None = None,
    ) -> JSONResponse:
        """Answer with what `make` returns, made in one transaction with its record and its idempotency key.

        `subject` is what is changed (left out: the `id` of what was made); `parts` is what makes the request the same
        where its body was not read as a whole.
        """
        digest = "" if self._key is None else await self._digest(parts)

        def write(session: Session) -> Answer:
            def once() -> Answer:
                body = make(session).model_dump(mode="json")
                self.record(session, action, subject if subject is not None else str(body["id"]))
                return status, body

            return idempotency.once(session, self._key, digest, once, project=self.project)

        return self._response(*await self.services.write(write))

    async def answered(self) -> JSONResponse | None:
        """The answer that was given to this key before; None where there is none.

        To be asked before what costs much or may come out differently now: what was accepted once stays accepted.
        """
        key = self._key
        if key is None:
            return None
        digest = await self._digest(None)
        kept = await self.services.read(lambda session: idempotency.kept(session, key, digest, project=self.project))
        return None if kept is None else self._response(*kept)

    async def done(self, action: str, change: Callable[[Session], object], *, subject: str) -> Response:
        """Change something and answer 204. What is deleted twice is not there the second time: no key is needed."""

        def write(session: Session) -> None:
            change(session)
            self.record(session, action, subject)

        await self.services.write(write)
        return Response(status_code=204)

    def record(self, session: Session, action: str, subject: str) -> None:
        """Note in the audit that the caller did this."""
        audit.record(
            session,
            actor=self.caller.name,
            token_id=self.caller.token_id,
            project=self.project,
            action=action,
            subject=subject,
            request_id=self._request.state.request_id,
        )

    def _response(self, status: int, body: dict[str, Any]) -> JSONResponse:
        headers = {"Location": f"{self._request.url.path}/{body['id']}"} if status == 201 and "id" in body else {}
        return JSONResponse(body, status, headers)

    async def _digest(self, parts: tuple[bytes | str, ...] | None) -> str:
        url = self._request.url
        content = parts if parts is not None else (await self._request.body(),)
        kind = self._request.headers.get("content-type", "")
        return idempotency.request_hash(self._request.method, url.path, url.query, kind, *content)


def _given(request: Request, services: GivenServices, idempotency_key: IdempotencyKeyHeader = None) -> Call:
    return Call(request, services, get_caller(request), idempotency_key)


def _given_without_key(request: Request, services: GivenServices) -> Call:
    return Call(request, services, get_caller(request), None)


GivenCall = Annotated[Call, Depends(_given)]
"""The type of a POST's parameter that takes the call, with its Idempotency-Key."""

GivenChange = Annotated[Call, Depends(_given_without_key)]
"""The same for a DELETE, which is the same when it is made twice."""
