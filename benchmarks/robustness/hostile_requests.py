"""Requests that no client library would send: hostile heads, hosts, origins and next-links, and clients that hang up.

They are a function of the seed. Each goes over a connection of its own, and none may be answered by a 5xx.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx2

MOST_GROWTH_BYTES = 100 << 20
"""By this much a service may grow while it is sent gigabytes of heads: a head is refused, not held."""

PIECES = (
    "[", "]", "[::1", "::1", "//", "/", "\\", ":", "@", "?", "#", "%", "%00", "%0d%0a", "..", "a", "x.example",
    "127.0.0.1", "99999", "http://", "https://", "javascript:", "\t", " ", "\u00e9", "\u00bd", "\u00ff", "null", "*",
    "\x7f",
)  # fmt: skip
PATHS = (
    "/",
    "/v1/sweeps",
    "/v1/nothing",
    "/v1/sweeps/",
    "/login",
    "/healthz",
    "/static/x",
    "/openapi.json",
    "/v1/workers",
)
KINDS = (
    "application/json",
    "application/x-yaml",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=" + "x" * 300,
    "multipart/form-data",
    "text/plain; charset=" + "x" * 300,
)
BODIES = (b'{"name": "', b"[" * 5000, b"--x\r\nContent-Disposition: form-data; name=", b"a=%", b"\xff\xfe", b"9" * 5000)


@dataclass(frozen=True)
class Hostile:
    """What is sent over one connection."""

    what: str
    sent: bytes
    leaves: Literal["", "in order", "reset"] = ""
    """How the client hangs up without reading; "": it reads."""


def draw(seed: int, count: int, token: str | None) -> Iterator[Hostile]:
    """So many requests of every kind, in turn."""
    chance = random.Random(seed)
    makers: tuple[Callable[[random.Random, str], Hostile], ...] = (
        _host, _origin, _link, _many_headers, _long_header, _long_address, _strange_head, _broken_off, _stream
    )  # fmt: skip
    bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
    for number in range(count):
        yield makers[number % len(makers)](chance, bearer)


def send(url: str, cases: Iterator[Hostile]) -> dict[str, Any]:
    """Send them all; answers how many there were, which statuses came back, and what failed."""
    statuses: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    sent, started = 0, time.monotonic()
    for case in cases:
        sent += 1
        status = _status(url, case)
        statuses[status] += 1
        if status.startswith("5"):
            failures[f"{case.what}: {status} to {case.sent[:200]!r}"] += 1
    if httpx2.get(f"{url}/healthz", timeout=60).status_code != 200:
        failures["the service does not answer any more"] += 1
    found = [f"{failure} ({times} times)" for failure, times in failures.items()]
    seconds = round(time.monotonic() - started)
    return {"cases": sent, "seconds": seconds, "statuses": dict(sorted(statuses.items())), "failures": found}


def _status(url: str, case: Hostile) -> str:
    place = urlsplit(url)
    received = b""
    with closing(socket.create_connection((place.hostname, place.port), timeout=60)) as connection:
        # A service that refuses stops reading, and may close while there is still something to send.
        with contextlib.suppress(ConnectionError):
            connection.sendall(case.sent)
        if case.leaves:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", case.leaves == "reset", 0))
            return "left"
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in received and (piece := connection.recv(65_536)):
                received += piece
    return received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.1 ") else "closed"


def _text(chance: random.Random) -> str:
    return "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 5)))


def _request(
    chance: random.Random, headers: str, *, path: str | None = None, method: str | None = None, body: bytes = b""
) -> bytes:
    method = method or chance.choice(("GET", "POST", "DELETE", "PATCH", "PUT", "HEAD", "OPTIONS"))
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path or chance.choice(PATHS)} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n"
    return head.encode("latin-1") + body


def _host(chance: random.Random, bearer: str) -> Hostile:
    return Hostile("host", _request(chance, f"Host: {_text(chance)}\r\n{bearer}"))


def _origin(chance: random.Random, bearer: str) -> Hostile:
    headers = f"Host: 127.0.0.1\r\nOrigin: {_text(chance)}\r\nReferer: {_text(chance)}\r\n{bearer}"
    return Hostile("origin", _request(chance, headers))


def _link(chance: random.Random, bearer: str) -> Hostile:
    value = quote(_text(chance), safe=chance.choice(("", "/[]:")))
    if chance.random() < 0.5:
        return Hostile(
            "link", _request(chance, f"Host: 127.0.0.1\r\n{bearer}", path=f"/login?next={value}", method="GET")
        )
    headers = "Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    body = f"token={quote(_text(chance))}&next={value}".encode()
    return Hostile("link", _request(chance, headers, path="/login", method="POST", body=body))


def _many_headers(chance: random.Random, bearer: str) -> Hostile:
    extra = "".join(f"X-{number}: {_text(chance).strip()}\r\n" for number in range(chance.choice((50, 101, 3000))))
    return Hostile("many headers", _request(chance, f"Host: 127.0.0.1\r\n{bearer}{extra}"))


def _long_header(chance: random.Random, bearer: str) -> Hostile:
    extra = f"X: {'y' * chance.choice((60_000, 70_000, 100_000))}\r\n" * chance.choice((1, 30))
    return Hostile("long header", _request(chance, f"Host: 127.0.0.1\r\n{bearer}{extra}"))


def _long_address(chance: random.Random, bearer: str) -> Hostile:
    name, length = chance.choice(("where", "page_token", "next")), chance.choice((30_000, 40_000))
    path = f"{chance.choice(PATHS)}?{name}={'y' * length}"
    return Hostile("long address", _request(chance, f"Host: 127.0.0.1\r\n{bearer}", path=path))


def _strange_head(chance: random.Random, bearer: str) -> Hostile:
    name = chance.choice(
        ("Cookie", "Content-Type", "Accept", "Prefer", "If-None-Match", "X-Forwarded-For", "Last-Event-ID")
    )
    name = chance.choice((name, "Idempotency-Key", "Layersweep-Project", "Expect", "Range"))
    return Hostile("strange head", _request(chance, f"Host: 127.0.0.1\r\n{name}: {_text(chance)}\r\n{bearer}"))


def _broken_off(chance: random.Random, bearer: str) -> Hostile:
    path = chance.choice(("/v1/sweeps", "/v1/datasets", "/v1/workers", "/login", "/new/check", "/v1/leases"))
    headers = f"Host: 127.0.0.1\r\nContent-Type: {chance.choice(KINDS)}\r\nContent-Length: 100000\r\n{bearer}"
    sent = f"POST {path} HTTP/1.1\r\n{headers}\r\n".encode() + chance.choice(BODIES)
    return Hostile("broken off", sent, leaves=chance.choice(("in order", "reset")))


def _stream(chance: random.Random, bearer: str) -> Hostile:
    path = chance.choice(("/v1/sweeps", "/v1/layers", "/metrics", "/static/layersweep.css"))
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{bearer}\r\n"
    return Hostile("leaves early", head.encode() * chance.choice((1, 5)), leaves="reset")
