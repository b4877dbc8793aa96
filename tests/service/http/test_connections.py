"""Heads that are too large, bodies that are refused or broken off, and clients that go away: on real connections."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

from service.http.connections import MAX_HEAD_BYTES, MAX_HEADERS, MAX_URI_BYTES
from service.leases import queue
from service.routes.sweeps import EXAMPLE as DOCUMENT
from tests.service.rows import Rows

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
PARTS = b'--x\r\nContent-Disposition: form-data; name="file"; filename="t"\r\n\r\nabc'


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """Connections do not depend on the kind of database."""
    return migrated_sqlite_url


@pytest.fixture
def url(app: FastAPI, serve: Callable[[FastAPI], str]) -> str:
    """A running service."""
    return serve(app)


def connect(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=60)


def answer_to(url: str, pieces: Iterable[bytes]) -> bytes:
    """What comes back, where the service may stop reading before all is sent."""
    received = b""
    with closing(connect(url)) as connection, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        while piece := connection.recv(65_536):
            received += piece
    return received


# --- heads ------------------------------------------------------------------------------------------------------------


def test_a_head_that_is_too_large_is_refused_before_it_is_held(url: str) -> None:
    too_large = {
        "many headers": (HEAD + b"X: y\r\n" * (MAX_HEADERS + 1) + b"\r\n", b"431"),
        "a long header": (HEAD + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", b"431"),
        "a value without an end": (HEAD + b"X: " + b"y" * 3 * MAX_HEAD_BYTES, b"431"),
        "a name without an end": (HEAD + b"y" * 3 * MAX_HEAD_BYTES, b"431"),
        "a long address": (b"GET /" + b"y" * MAX_URI_BYTES + b" HTTP/1.1\r\n", b"414"),
    }
    for name, (sent, status) in too_large.items():
        # In small pieces: what comes after the refusal would reset the connection and take the answer along.
        received = answer_to(url, [sent[: len(sent) - 1], sent[-1:]])
        assert not received or received.startswith(b"HTTP/1.1 " + status), name
        assert not received or b"application/problem+json" in received, name
    many = HEAD + b"X: y\r\n" * (MAX_HEADERS + 1)
    assert answer_to(url, [many]).startswith(b"HTTP/1.1 431 ")
    with closing(connect(url)) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(many)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 431 ")


def test_a_connection_holds_no_more_than_a_head(url: str) -> None:
    """Three hundred megabytes of headers came in before any token was looked at; a body's trailers are headers, too."""
    chunked = b"POST /v1/workers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunked += b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    for begin, piece in (
        (HEAD, b"X: " + b"y" * 100_000 + b"\r\n"),
        (HEAD + b"X: ", b"y" * 100_000),
        (chunked, b"X: " + b"y" * 100_000 + b"\r\n"),
        (chunked + b"X: ", b"y" * 100_000),
    ):
        sent = 0
        with closing(connect(url)) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(begin)
            for _ in range(300):
                connection.sendall(piece)
                sent += len(piece)
        # What the two ends of the connection buffer comes on top.
        assert sent < 200 * len(piece), begin


def test_what_users_send_is_no_too_large_head(url: str) -> None:
    where = [("where", f"latency_ms_p50<={number}.{'0' * 190}") for number in range(20)]
    headers = {f"X-{number}": "y" * 100 for number in range(MAX_HEADERS - 20)}
    assert httpx2.get(f"{url}/healthz", params=where, headers=headers).status_code == 200
    pieces = iter([b" "] * 20_000)
    answer = httpx2.post(f"{url}/v1/workers", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_a_name_or_an_origin_that_is_none_is_refused(url: str) -> None:
    for name in ("[", "[::1", "[v1.x]]", "a:b", "a:99999", "]"):
        head = f"GET /v1/sweeps HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
        assert answer_to(url, [head.encode()]).startswith(b"HTTP/1.1 403 "), name
    for origin in ("http://[", "http://[::1", "//", "null", "http://a:b"):
        answer = httpx2.post(f"{url}/v1/sweeps", json=DOCUMENT, headers={"Origin": origin})
        assert answer.status_code == 403, origin
    for path in ("//[", "//[::1", "/\\[", "http://[", "//]", "[", "http://[::1"):
        answer = httpx2.get(f"{url}/login", params={"next": path})
        assert (answer.status_code, 'value="/"' in answer.text) == (200, True), path


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_a_client_that_sends_too_much_before_it_reads_finds_the_answer(url: str) -> None:
    """Closing the connection while it sends would reset it, and the 413 would be lost."""
    body = b" " * (16 << 20)
    head = "POST /v1/workers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for connection in ("close", "keep-alive"):
        with closing(connect(url)) as sending:
            sending.sendall(f"{head}Connection: {connection}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            sending.sendall(body)
            assert sending.recv(65_536).startswith(b"HTTP/1.1 413 "), connection


@pytest.fixture
def line_of(caplog: pytest.LogCaptureFixture) -> Callable[[str], str]:
    """A function that waits for the line of a request to a path: the only one about it, and no warning is another."""
    caplog.set_level(logging.INFO)

    def wait(path: str) -> str:
        deadline = time.monotonic() + 60
        while not [each for each in caplog.records if path in each.getMessage()]:
            assert time.monotonic() < deadline, f"nothing was logged of {path}"
            time.sleep(0.01)
        said = [each for each in caplog.records if path in each.getMessage() or each.levelno >= logging.WARNING]
        assert [each.getMessage() for each in said if each.levelno >= logging.WARNING or each.exc_info] == []
        caplog.clear()
        return said[-1].getMessage()

    return wait


def test_a_client_that_goes_away_in_the_middle_of_a_body_is_a_line_of_the_log(
    app: FastAPI, url: str, make_rows: type[Rows], line_of: Callable[[str], str]
) -> None:
    rows = make_rows(app.state.services.database)
    rows.sweep(queued=1)
    worker = rows.worker()
    lease = rows.database.write(lambda session: queue.claim(session, worker, 30))
    for method, path, kind, begin in (
        ("POST", "/v1/sweeps", "application/json", b'{"name": "'),
        ("POST", "/v1/workers", "application/json", b'{"name": "'),
        ("POST", "/v1/datasets", "multipart/form-data; boundary=x", PARTS),
        ("PUT", f"/v1/leases/{lease.trial}/1/artifacts/model.onnx", "application/octet-stream", b"abc"),
        ("POST", "/login", "application/x-www-form-urlencoded", b"token=a"),
        ("POST", "/new/check", "multipart/form-data; boundary=x", PARTS),
    ):
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n"
        with closing(connect(url)) as connection:
            connection.sendall(f"{head}Content-Digest: sha-256=:x:\r\nIdempotency-Key: k\r\n\r\n".encode() + begin)
            # It has begun to be read when another request is answered.
            httpx2.get(f"{url}/healthz")
        assert " 499 " in line_of(path), path
    assert not app.state.services.in_flight, "the same may be sent again"
    counted = httpx2.get(f"{url}/metrics").text
    assert 'status="499"' in counted


def test_a_client_of_an_event_stream_that_goes_away_is_at_most_a_line_of_the_log(
    app: FastAPI, url: str, make_rows: type[Rows], line_of: Callable[[str], str]
) -> None:
    rows = make_rows(app.state.services.database)
    sweep = rows.sweep(queued=40)
    path = f"/v1/sweeps/{sweep}/events"
    for number in range(40):
        with closing(connect(url)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            for _ in range(number % 3):
                connection.recv(1000)
            rows.queue(sweep, 1)
            # A reset, which comes at once.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line_of(path)
