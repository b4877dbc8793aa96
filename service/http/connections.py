"""Connections that hold no more than they must: heads are short and come in time, refused bodies are read to the end.

What comes a byte a minute keeps no connection open, and a head without an end fills no memory.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadTooLargeError, ServiceError, URITooLongError

MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and its headers together; of the trailers after a body, too."""
MAX_URI_BYTES = 32 * 1024


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """The server's protocol, which waits for ever for the rest of a head and takes one of any size; this one does not.

    A body that does not come has its own limit, in `service.auth.rate_limits`; what comes of one that was refused is
    read for as long as a head may take, so that a client that sends before it reads still finds the answer.
    """

    head_seconds: float = 20.0
    _head_timer: asyncio.TimerHandle | None = None
    _message_complete: bool = True
    _is_last: bool = False
    """True from a request on after which the client wants the connection closed."""
    _headers: int = 0
    _head_bytes: int = 0
    _unread_bytes: int = 0
    """What came since the last piece of a body: the parser may hold all of it."""
    _refusal: ServiceError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refusal = HeadTooLargeError(_HEAD_TOO_LARGE)
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._message_complete = False
        self._headers = self._head_bytes = self._unread_bytes = 0
        self._wait_for_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)
        if len(self.url) > MAX_URI_BYTES:
            self._refuse(
                URITooLongError(f"the address is longer than the {MAX_URI_BYTES:,} bytes that are accepted here")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._head_bytes += len(name) + len(value)
        if self._headers > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadTooLargeError(_HEAD_TOO_LARGE))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        before = self.cycle
        super().on_headers_complete()
        self._unread_bytes = 0
        if self.cycle is not before and not self.cycle.keep_alive:
            self._is_last = True
            self.cycle.transport = _ReadToTheEnd(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._message_complete = True
        self._unread_bytes = 0
        if not self.cycle.response_complete:
            self._stop_waiting()
        elif self._is_last:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._message_complete:
            # It was answered before all of it came, and the rest is read for nothing: not for ever.
            self._wait_for_head()

    def close_after_message(self) -> None:
        """Close the connection, if a request still comes, when all of it has come: a reset would take the answer."""
        if self._message_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or not accepted as a request; an answer that is under way is broken off instead."""
        refusal, self._refusal = self._refusal, None
        if self.cycle is not None and not self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            self.transport.close()
        elif refusal is None:
            super().send_400_response(msg)
        else:
            self.transport.write(_answer(refusal))
            self.transport.close()

    def _refuse(self, refusal: ServiceError) -> None:
        self._refusal = refusal
        raise httptools.HttpParserError(refusal.detail)

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


_HEAD_TOO_LARGE = f"a head has at most {MAX_HEADERS} headers and {MAX_HEAD_BYTES:,} bytes"


class _ReadToTheEnd:
    """The transport of the last request of a connection: it is closed when the rest of that request was read.

    Closing it earlier would reset the connection while the client still sends, and the answer would be lost.
    """

    def __init__(self, protocol: HeaderTimeoutProtocol) -> None:
        self._protocol = protocol

    def close(self) -> None:
        self._protocol.close_after_message()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol.transport, name)


def _answer(refusal: ServiceError) -> bytes:
    body = json.dumps(refusal.body("")).encode()
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
        f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def protocol(head_seconds: float) -> type[HeaderTimeoutProtocol]:
    """The protocol that gives a head so many seconds."""
    return type("Protocol", (HeaderTimeoutProtocol,), {"head_seconds": head_seconds})
