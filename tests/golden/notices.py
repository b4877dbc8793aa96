"""What others are told of a sweep: its events, a delivery to a webhook, and the request that carries it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.access_models import WebhookDelivery
from service.database.models import Event
from service.events import sender, webhooks
from tests.golden.answers import laid_out
from tests.golden.normalising import Normaliser
from tests.golden.world import World


def read(world: World) -> dict[str, str]:
    """File name of each recording -> the first event of each kind, deliveries of each kind, a request."""
    normaliser = Normaliser(world.names)
    events, deliveries = (world.services.database.read(each) for each in (_events, _deliveries))
    return {
        "events.txt": normaliser.text("\n".join(events)),
        "deliveries.txt": normaliser.text("\n".join(deliveries)),
        "request.txt": request(),
    }


def _events(session: Session) -> list[str]:
    rows = session.scalars(sa.select(Event).order_by(Event.sweep_id, Event.sequence))
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(_kind(row.kind, row.data), f"{row.kind} {laid_out(dict(sorted(row.data.items())))}")
    return [first[kind] for kind in sorted(first)]


def _kind(kind: str, data: dict[str, Any]) -> str:
    return f"{kind} {data.get('state', '')}"


def _deliveries(session: Session) -> list[str]:
    rows = session.scalars(sa.select(WebhookDelivery).order_by(WebhookDelivery.id))
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.body["type"], laid_out(row.body))
    return [first[kind] for kind in sorted(first)]


def request() -> str:
    """The request that a receiver gets, signed with a secret, an id and a time that are always the same."""
    body = json.dumps({"type": "webhook.ping"}).encode()
    secret = webhooks.secret_of(b"a key of a server that is not one", "01WEBHK0000000000000000001", "e" * 64)
    headers = webhooks.headers_of(secret, "01DELIV0000000000000000001", 1_767_225_600, body)
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(204, stream=httpx2.ByteStream(b""))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx2, "AsyncHTTPTransport", lambda **_: httpx2.MockTransport(answer))
        where = [ipaddress.ip_address("192.0.2.1")]
        url = "https://example.com/hook"
        sent = sender.call(url, "example.com", where, headers, body, tls=ssl.create_default_context())
        status = asyncio.run(sent)
    (request,) = seen
    lines = sorted(f"{name}: {value}" for name, value in request.headers.items())
    return "\n".join([f"{request.method} {request.url}", *lines, "", request.read().decode(), f"answered {status}"])
