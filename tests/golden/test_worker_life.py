"""An old worker lives with today's service, and today's worker with an old service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.golden.worker_life import FILE, SWEEPS, Exchange, Replay, lacking, recorded_life
from workers.processes.children import Children
from workers.service.client import RefusedError, ServiceClient
from workers.settings import CacheSettings, WorkerIdentity
from workers.worker import Worker

LIFE = recorded_life()


@pytest.fixture
def replay(live_service: str) -> Iterator[Replay]:
    with httpx2.Client(base_url=live_service, timeout=60) as http:
        for document in SWEEPS.values():
            assert http.post("/v1/sweeps", json=document).status_code == 201
        yield Replay(http)


def test_an_old_worker_finds_every_answer_as_it_was(replay: Replay) -> None:
    assert [each for exchange in LIFE for each in replay.send(exchange)] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_answer_that_changed_is_noticed(replay: Replay) -> None:
    registered, *_ = LIFE
    for planted, noticed in (
        (replace(registered, status=200), "201"),
        (replace(registered, answer={**registered.answer, "lease_minutes": 1}), "/lease_minutes is gone"),
        (replace(registered, answer={**registered.answer, "id": 7}), "/id is text, not number"),
        (replace(registered, body={**registered.body, "targets": []}), "422"),
    ):
        found = replay.send(replace(planted, headers={}))
        assert len(found) == 1
        assert noticed in found[0]


class OldService:
    """Answers today's client with what was recorded, one exchange after the other, and compares what it is sent."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self.exchanges = exchanges
        self.changed: list[str] = []

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        sent = request.read()
        exchange, *self.exchanges = self.exchanges
        method, path = request.method, str(request.url.raw_path, "ascii")
        if (method, path) != (exchange.method, exchange.path):
            self.changed.append(f"{method} {path}, not {exchange.method} {exchange.path}")
        self.changed += [f"{path}: header {name} is gone" for name in exchange.headers if name not in request.headers]
        if exchange.body is not None:
            self.changed += [f"{path}: {each}" for each in lacking(exchange.body, json.loads(sent))]
        if exchange.answer is None:
            return httpx2.Response(exchange.status, content=FILE if exchange.status == 200 else b"")
        return httpx2.Response(exchange.status, json=exchange.answer)


def _calls(service: ServiceClient, exchange: Exchange, folder: Path) -> Callable[[], Any]:
    """What of the client's calls made the exchange."""
    path, _, query = exchange.path.removeprefix("/v1/").partition("?")
    noun, *rest = path.split("/")
    body = exchange.body or {}
    if noun == "workers":
        if exchange.method == "DELETE":
            return lambda: service.deregister(rest[0])
        return lambda: service.register(body, exchange.headers["idempotency-key"])
    if noun == "datasets":
        return lambda: service.download(rest[0], query.removeprefix("part="), folder / "part")
    if not rest:
        return lambda: service.claim(body["worker"], float(exchange.headers["prefer"].removeprefix("wait=")), "key")
    trial, (attempt, _, verb) = rest[0], rest[1].partition(":")
    if rest[2:]:
        return lambda: service.upload(trial, int(attempt), rest[3], folder / "part", "sha-256=:...:")
    if verb == "release":
        return lambda: service.release(trial, int(attempt), body["reason"], charge=body["charge"])
    if verb == "offer":
        return lambda: service.offer(trial, int(attempt), body["metrics"])
    if verb == "heartbeat":
        return lambda: service.heartbeat(trial, int(attempt))
    return lambda: getattr(service, verb)(trial, int(attempt), body)


def _live(old: OldService, folder: Path) -> list[Any]:
    """Make every call of the recorded life; what the client made of the answers that carry something."""
    service = ServiceClient("http://service", transport=httpx2.MockTransport(old.handle))
    understood: list[Any] = []
    for exchange in list(old.exchanges):
        try:
            understood.append(_calls(service, exchange, folder)())
        except RefusedError as refusal:
            understood.append((refusal.status, refusal.kind, refusal.lease_is_lost))
    return understood


def test_today_s_client_understands_an_old_service(tmp_path: Path) -> None:
    old = OldService(list(LIFE))
    understood = _live(old, tmp_path)
    assert (old.changed, old.exchanges) == ([], [])
    by_path = list(zip(LIFE, understood, strict=True))
    assert [found for each, found in by_path if each.path == "/v1/workers"] == [
        each.answer for each in LIFE if each.path == "/v1/workers"
    ]
    claims = [(each, found) for each, found in by_path if each.path == "/v1/leases" and each.status < 300]
    assert [found for _, found in claims] == [[] if each.answer is None else [each.answer] for each, _ in claims]
    assert [found for each, found in by_path if each.status >= 400] == [
        (409, "lease-lost", True),
        (404, "not-found", True),
    ]
    (wanted,) = (found for each, found in by_path if each.path.endswith(":offer"))
    assert wanted == [each.path.rpartition("/")[2] for each in LIFE if each.method == "PUT"]


def test_a_request_that_changed_is_noticed(tmp_path: Path) -> None:
    released = next(each for each in LIFE if each.path.endswith(":release"))
    old = OldService([replace(released, body={**released.body, "cost": 1}, path="/v1/leases/T/1:give-back")])
    service = ServiceClient("http://service", transport=httpx2.MockTransport(old.handle))
    service.release("T", 1, "the worker was asked to stop", charge=False)
    assert old.changed == [
        "POST /v1/leases/T/1:release, not POST /v1/leases/T/1:give-back",
        "/v1/leases/T/1:release: /cost is gone",
    ]


def test_today_s_worker_registers_with_an_old_service_and_signs_off(tmp_path: Path) -> None:
    registered = LIFE[0]
    idle = next(each for each in LIFE if each.path == "/v1/leases" and each.status == 204)
    signed_off = next(each for each in LIFE if each.method == "DELETE")
    old = OldService([registered, replace(idle, body={"worker": registered.answer["id"]}), signed_off])

    def handle(request: httpx2.Request) -> httpx2.Response:
        answer = old.handle(request)
        if request.url.path == "/v1/leases":
            worker.drain()
        return answer

    service = ServiceClient("http://service", transport=httpx2.MockTransport(handle))
    worker = Worker(
        service, WorkerIdentity("the worker"), children=[Children(threads=1)], caches=CacheSettings(tmp_path)
    )
    worker.work()
    assert (old.changed, old.exchanges) == ([], [])
