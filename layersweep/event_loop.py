"""Carry out what is written for threads in an event loop: calls wait for the service, and the loop goes on.

The client's code is written once, without `await`. `in_loop` runs a call of it in a greenlet; if it would block, in
`wait_for`, the greenlet is left, the event loop awaits what it waits for, and the call goes on with what came of it, as
SQLAlchemy's asyncio extension does. Cancelling the task ends the call where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import httpx2

from layersweep.errors import MissingDependencyError
from layersweep.transport import environment_faults, trusts_environment

try:
    import greenlet
except ImportError as problem:
    raise MissingDependencyError(
        "AsyncClient needs greenlet, which is not installed: pip install 'layersweep[async]'"
    ) from problem

P = ParamSpec("P")
T = TypeVar("T")
_END = object()


async def in_loop(call: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
    """The result of a call that may `wait_for` something."""
    worker = greenlet.greenlet(call)
    found = worker.switch(*args, **keywords)
    while not worker.dead:
        try:
            value = await cast("Awaitable[object]", found)
        except BaseException as problem:  # noqa: BLE001 - a cancellation, too, is the call's to end by
            found = worker.throw(problem)
        else:
            found = worker.switch(value)
    return cast("T", found)


def wait_for(awaitable: Awaitable[T]) -> T:
    """Let the event loop go on until this is there. To be called below `in_loop` alone."""
    runner = greenlet.getcurrent().parent
    assert runner is not None, "nothing to switch to: this was not called below in_loop"
    return cast("T", runner.switch(awaitable))


def sleep(seconds: float) -> None:
    """Let the event loop go on for so long."""
    wait_for(asyncio.sleep(seconds))


async def each(items: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """The items of an iterator whose steps may wait for something."""
    iterator = await in_loop(items)
    try:
        while (item := await in_loop(next, iterator, cast("T", _END))) is not _END:
            yield item
    finally:
        if hasattr(iterator, "close"):
            await in_loop(cast("Any", iterator).close)


class LoopTransport(httpx2.BaseTransport):
    """Answers a blocking client's requests by an asynchronous one, below `in_loop`."""

    def __init__(self, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """`transport`: in place of connections."""
        self._transport = transport
        self._http: httpx2.AsyncClient | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the body of its answer is read as it is asked for."""
        sent = httpx2.Request(
            request.method, request.url, headers=request.headers, content=request.read(), extensions=request.extensions
        )
        if self._http is None:
            with environment_faults():
                self._http = httpx2.AsyncClient(transport=self._transport, trust_env=trusts_environment(request.url))
        answer = wait_for(self._http.send(sent, stream=True))
        return httpx2.Response(
            answer.status_code, headers=answer.headers, stream=_LoopStream(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close the connections, of which there are none before the first request."""
        if self._http is not None:
            wait_for(self._http.aclose())


class _LoopStream(httpx2.SyncByteStream):
    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        pieces = aiter(cast("httpx2.AsyncByteStream", self._answer.stream))
        while True:
            try:
                yield wait_for(anext(pieces))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        wait_for(self._answer.aclose())
