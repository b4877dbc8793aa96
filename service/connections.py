"""Connections that a request's head must reach in time: what comes a byte a minute keeps none open."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ImpatientProtocol(HttpToolsProtocol):
    """The server's protocol, which waits for ever for the rest of a head; this one closes the connection.

    A body that does not come has its own limit, in `service.limits`; what comes of one that was refused is read for as
    long as a head may take, so that a client that sends before it reads still finds the answer.
    """

    head_seconds: float = 20.0
    _head_timer: asyncio.TimerHandle | None = None
    _message_complete: bool = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._message_complete = False
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._message_complete = True
        if not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._message_complete:
            # It was answered before all of it came, and the rest is read for nothing: not for ever.
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.close()


def protocol(head_seconds: float) -> type[ImpatientProtocol]:
    """The protocol that gives a head so many seconds."""
    return type("Protocol", (ImpatientProtocol,), {"head_seconds": head_seconds})
