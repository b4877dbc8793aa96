"""Requests that change something: carried out at most once a key, recorded in the audit, all in one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.auth import audit
from service.auth.access import Caller
from service.database.group_commit import Needs
from service.errors import InFlightError
from service.http import idempotency
from service.http.callers import get_caller, project_of
from service.http.dependencies import Services, at_end, services_of
from service.http.idempotency import Answer, IdempotencyKeyHeader


class WriteRequest:
    """One request that changes something, made by a caller."""

    def __init__(self, request: Request, services: Services, caller: Caller, key: str | None) -> None:
        self.caller = caller
        self.services = services
        self.key = key
        self._request = request
        self._address = None if request.client is None else request.client.host[:64]

    @property
    def project(self) -> str:
        return self.caller.project

    async def caller_is_gone(self) -> bool:
        """Whether the connection has ended. The body is read first: to look takes the next message of the connection,
        and whoever asked for an unread body later would wait for it for ever."""
        await self._request.body()
        return await self._request.is_disconnected()

    async def answer(
        self,
        action: str,
        make: Callable[[Session], BaseModel],
        *,
        status: int = 200,
        subject: str | None = None,
    ) -> JSONResponse:
        """Answer with what `make` returns, made in one transaction with its record and its idempotency key.

        `subject` is what is changed (left out: the `id` of what was made).
        """
        digest = await self._digest()

        def write(session: Session) -> Answer:
            def once() -> Answer:
                project = project_of(session, self._request)
                body = make(session).model_dump(mode="json")
                # What was made says whose it is.
                project = body.get("project", project) if status == 201 else project
                self.record(session, action, subject if subject is not None else str(body["id"]), project=project)
                return status, body

            return idempotency.once(session, self.key, digest, once, project=self.project)

        return self._response(*await self.services.write(write))

    async def answer_with_secret(
        self,
        action: str,
        make: Callable[[Session], tuple[BaseModel, str]],
        *,
        field: str,
        status: int,
        subject: str | None = None,
    ) -> JSONResponse:
        """The same with a secret, as `field` of the answer. It stays out of what is kept for a repetition."""
        secrets: list[str] = []

        def made(session: Session) -> BaseModel:
            body, secret = make(session)
            # A transaction that is run again makes another one.
            secrets[:] = [secret]
            return body

        answer = await self.answer(action, made, status=status, subject=subject)
        if not secrets:
            return answer
        return self._response(status, json.loads(bytes(answer.body)) | {field: secrets[0]})

    async def answered(self) -> JSONResponse | None:
        """The answer that was given to this key before; None if there is none.

        To be asked before what costs much or may come out differently now: what was accepted once stays accepted.
        """
        kept = await self.kept()
        return None if kept is None else self._response(*kept)

    async def small_answer(self, make: Callable[[Session], BaseModel], *, needs: Needs | None = None) -> Response:
        """The same for what workers send often: a small write, recorded with the trial's attempt and not here.

        `needs`: the rows that it locks.
        """
        if self.key is None:
            made = await self.services.submit(make, needs=needs)
            return Response(made.model_dump_json(), media_type="application/json")
        digest = await self._digest()

        def write(session: Session) -> Answer:
            return idempotency.once(
                session, self.key, digest, lambda: (200, make(session).model_dump(mode="json")), project=self.project
            )

        _, body = await self.services.submit(write, needs=needs)
        return JSONResponse(body)

    async def passing_answer(
        self,
        make: Callable[[Session], BaseModel | None],
        still: Callable[[Session, JsonObject], JsonObject | None],
        *,
        needs: Needs,
    ) -> Response | None:
        """Answer with what `make` gives, kept in its transaction; None if it gives nothing.

        For answers that pass, such as a lease: the same request again gets what `still` says holds of its answer, or,
        if nothing does (None), what `make` gives then.
        """
        key, digest = self.key, await self._digest()

        def write(session: Session) -> str | None:
            given = None if key is None else idempotency.kept(session, self.project, key, digest)
            if key is not None and given is not None:
                _, body = given
                holds = still(session, body)
                if holds is not None:
                    return json.dumps(holds)
                idempotency.forget(session, self.project, key)
            answer = make(session)
            if answer is None:
                return None
            if key is not None:
                idempotency.keep(session, self.project, key, digest, (200, answer.model_dump(mode="json")))
            return answer.model_dump_json()

        answer = await self.services.submit(write, needs=needs)
        return None if answer is None else Response(answer, media_type="application/json")

    async def kept(self, *parts: bytes | str) -> Answer | None:
        """The answer that this request was given before. `parts` is what makes it the same, left out: its body."""
        key = self.key
        if key is None:
            return None
        digest = await self._digest(*parts)
        return await self.services.read(lambda session: idempotency.kept(session, self.project, key, digest))

    async def keep(self, answer: Answer, *parts: bytes | str) -> None:
        """Keep the answer for `kept`, if it could not be kept in the transaction that made it."""
        key = self.key
        if key is not None:
            digest = await self._digest(*parts)
            await self.services.write(lambda session: idempotency.keep(session, self.project, key, digest, answer))

    async def done(self, action: str, change: Callable[[Session], object], *, subject: str) -> Response:
        """Change something and answer 204. What is deleted twice is not there the second time: no key is needed."""

        def write(session: Session) -> None:
            # Before it is gone.
            project = project_of(session, self._request)
            change(session)
            self.record(session, action, subject, project=project)

        await self.services.write(write)
        return Response(status_code=204)

    def record(self, session: Session, action: str, subject: str, *, project: str | None) -> None:
        """Note in the audit that the caller did this, in this project (None: in all)."""
        audit.record(
            session,
            actor=self.caller.name,
            token_id=self.caller.token_id,
            project=project,
            action=action,
            subject=subject,
            request_id=self._request.state.request_id,
            address=self._address,
        )

    def _response(self, status: int, body: JsonObject) -> JSONResponse:
        """The answer, with the address of what was made."""
        headers = {"Location": f"{self._collection}/{body['id']}"} if status == 201 and "id" in body else {}
        return JSONResponse(body, status, headers)

    @property
    def _collection(self) -> str:
        """The path of the list that the request adds to: `/v1/sweeps` of `/v1/sweeps/S:clone`."""
        path = self._request.url.path
        before, _, last = path.rpartition("/")
        return before if ":" in last else path

    async def _digest(self, *parts: bytes | str) -> str:
        if self.key is None:
            return ""
        url = self._request.url
        kind = self._request.headers.get("content-type", "")
        # The boundary of a form differs each time it is sent.
        content = parts or (kind, await self._request.body())
        return idempotency.request_hash(self._request.method, url.path, url.query, *content)


async def _keyed(request: Request, idempotency_key: IdempotencyKeyHeader = None) -> WriteRequest:
    services = services_of(request)
    call = WriteRequest(request, services, get_caller(request), idempotency_key)
    if idempotency_key is not None:
        mark = (call.project, idempotency_key)
        if mark in services.in_flight:
            raise InFlightError("a request with this Idempotency-Key is in progress: send it again later")
        services.in_flight.add(mark)
        # Not by a generator: the framework's way of ending one costs every request as much as its own work.
        at_end(request, services.in_flight.discard, mark)
    return call


async def _unkeyed(request: Request) -> WriteRequest:
    return WriteRequest(request, services_of(request), get_caller(request), None)


WriteRequestDep = Annotated[WriteRequest, Depends(_keyed)]
"""The type of a POST's parameter that takes the call, with its Idempotency-Key."""

UnkeyedWriteRequestDep = Annotated[WriteRequest, Depends(_unkeyed)]
"""The same for a DELETE, which is the same when it is made twice."""
