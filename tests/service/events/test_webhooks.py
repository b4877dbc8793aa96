"""Webhooks: told with the change or not at all, signed, sent again, and never a way into the service's own network."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import AsyncHTTPTransport, ByteStream, ConnectError, ConnectTimeout, Request, Response

from service.app import create_app
from service.auth import projects, tokens
from service.common.states import SweepState
from service.database.access_models import Webhook, WebhookDelivery
from service.errors import UnprocessableError
from service.events import addresses, sender, server_key, webhooks
from service.events import schemas as event_schemas
from service.events.addresses import Address, AddressError
from service.events.sender import WebhookSender, call
from service.http.dependencies import Services
from service.settings import Settings
from tests.service.rows import Rows

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


# --- a receiver -------------------------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """A real HTTP server of this test. Its answers are taken from `answers`, the last one again and again."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(204, {})])
    received: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    hang: threading.Event | None = None


@pytest.fixture
def make_receiver() -> Iterator[Callable[[], Receiver]]:
    servers: list[ThreadingHTTPServer] = []
    hanging: list[Receiver] = []

    def make() -> Receiver:
        receiver = Receiver()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                if receiver.hang is not None:
                    receiver.hang.wait(60)
                status, headers = receiver.answers[0] if len(receiver.answers) == 1 else receiver.answers.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        hanging.append(receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook?from=layersweep"
        return receiver

    yield make
    for receiver in hanging:
        if receiver.hang is not None:
            receiver.hang.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver(make_receiver: Callable[[], Receiver]) -> Receiver:
    return make_receiver()


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: test_outbox.py asks both."""
    return migrated_sqlite_url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Webhooks may lead to this machine. The key is there, as it is before the first webhook."""
    settings = Settings(database_url=database_url, data_dir=tmp_path / "data", webhook_allowed_networks=[LOOPBACK])
    settings.data_dir.mkdir()
    server_key.read(settings, lambda: False)
    return settings


@pytest.fixture
def add(services: Services) -> Callable[..., Webhook]:
    def make(url: str, *, project: str = "default", events: tuple[str, ...] = webhooks.EVENTS) -> Webhook:
        def write(session: Any) -> Webhook:
            allowed = services.settings.webhook_allowed_networks
            return webhooks.create(session, project=project, url=url, events=events, made_by="a test", allowed=allowed)

        return services.database.write(write)

    return make


def send(services: Services) -> None:
    """Send what is due now, as the task of an API process does."""

    async def once() -> None:
        sender = WebhookSender(services.database, services.notifications, services.settings)
        while True:
            await sender.send_due()
            await sender.wait_idle()
            if not services.database.read(lambda session: webhooks.any_due(session, [])):
                return

    asyncio.run(once())


def outbox(services: Services) -> list[WebhookDelivery]:
    statement = sa.select(WebhookDelivery).order_by(WebhookDelivery.id)
    return services.database.read(lambda session: list(session.scalars(statement)))


def come_due(services: Services) -> None:
    """The time of the next try has come."""
    statement = sa.update(WebhookDelivery).values(due_at=1.0)
    services.database.write(lambda session: session.execute(statement).rowcount)


# --- the documented way to verify -------------------------------------------------------------------------------------


def documented_verification() -> Callable[..., bool]:
    """The function that docs/webhooks.md shows, run as a reader would."""
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
    (source,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/webhooks.md", "exec"), names)
    return names["is_from_layersweep"]


def test_a_delivery_is_verified_as_the_page_says(
    client: TestClient, services: Services, receiver: Receiver, served_rows: Rows
) -> None:
    made = client.post("/v1/webhooks", json={"url": receiver.url})
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    sweep = served_rows.sweep()
    assert client.post(f"/v1/sweeps/{sweep}:cancel").status_code == 200
    send(services)
    ((headers, body),) = receiver.received
    verify = documented_verification()
    assert verify(secret, headers, body)
    assert not verify(secret, headers, body + b" ")
    assert not verify(secret, {**headers, "webhook-id": "another"}, body)
    assert not verify(secret, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}, body)
    assert not verify(secret, headers, body, tolerance_seconds=-1), "an old one is refused"
    assert not verify("whsec_AAAA", headers, body)
    assert not verify(secret, {}, body)
    told = event_schemas.WebhookDelivery.model_validate(outbox(services)[0])
    assert (told.state, told.tries, told.status, told.last_error) == ("delivered", 1, 204, None)
    assert told.body["type"] == "sweep.cancelled"
    assert told.body["data"]["sweep"] == sweep
    assert headers["content-type"] == "application/json"
    assert headers["host"] == receiver.url.split("/")[2]


def test_every_state_can_be_subscribed_to() -> None:
    assert set(webhooks.EVENTS) == {"sweep.created", *(f"sweep.{state}" for state in SweepState)}
    assert set(webhooks.EVENTS) == set(event_schemas.WebhookEvent.__args__)


# --- trying again -----------------------------------------------------------------------------------------------------


def test_what_is_refused_is_sent_again_with_the_same_id(
    client: TestClient, services: Services, add: Any, receiver: Receiver
) -> None:
    hook = add(receiver.url)
    receiver.answers = [(500, {}), (200, {})]
    assert client.post(f"/v1/webhooks/{hook.id}:ping").status_code == 200
    send(services)
    (waiting,) = client.get(f"/v1/webhooks/{hook.id}/deliveries").json()["items"]
    assert (waiting["state"], waiting["tries"], waiting["status"]) == ("pending", 1, 500)
    assert waiting["due_at"] > waiting["created_at"]
    come_due(services)
    send(services)
    (done,) = client.get(f"/v1/webhooks/{hook.id}/deliveries").json()["items"]
    assert (done["state"], done["tries"], done["status"]) == ("delivered", 2, 200)
    first, second = (headers["webhook-id"] for headers, _ in receiver.received)
    assert first == second == done["id"]
    again = client.post(f"/v1/webhooks/{hook.id}/deliveries/{done['id']}:resend")
    assert (again.status_code, again.json()["state"]) == (200, "pending")
    assert client.post(f"/v1/webhooks/{hook.id}/deliveries/{done['id']}:resend").status_code == 409
    send(services)
    assert len(receiver.received) == 3


def test_waits_grow_and_end() -> None:
    waits = [webhooks.BACKOFF.seconds(tries) for tries in range(1, 40)]
    assert 8 <= waits[0] <= 12
    assert 24 <= waits[1] <= 36
    assert max(waits) <= 1.2 * 6 * 3600
    assert webhooks.BACKOFF.seconds(3) != webhooks.BACKOFF.seconds(3), "not all at the same time"


@pytest.fixture
def impatient(settings: Settings) -> Iterator[Services]:
    changed = Settings(**settings.model_dump() | {"webhook_seconds": 0.3, "webhook_tries": 1})
    app = create_app(changed, start_scheduler=False)
    with TestClient(app):
        yield app.state.services


def _told_once(services: Services, url: str) -> WebhookDelivery:
    def write(session: Any) -> str:
        allowed = services.settings.webhook_allowed_networks
        made = webhooks.create(
            session, project="default", url=url, events=["sweep.failed"], made_by="", allowed=allowed
        )
        return webhooks.ping(session, made.id).id

    services.database.write(write)
    send(services)
    (delivery,) = outbox(services)
    return delivery


def test_a_receiver_that_hangs_is_given_up(impatient: Services, receiver: Receiver) -> None:
    receiver.hang = threading.Event()
    delivery = _told_once(impatient, receiver.url)
    assert (delivery.state, delivery.last_error) == ("failed", "no answer within 0.3 s")


def test_a_redirect_is_not_followed(impatient: Services, make_receiver: Callable[[], Receiver]) -> None:
    first, second = make_receiver(), make_receiver()
    first.answers = [(307, {"Location": second.url})]
    delivery = _told_once(impatient, first.url)
    assert (delivery.state, delivery.status) == ("failed", 307)
    assert "redirect" in str(delivery.last_error)
    assert second.received == []


def test_nothing_listens(impatient: Services) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        delivery = _told_once(impatient, f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert delivery.state == "failed"
    assert delivery.status is None
    assert delivery.last_error


# --- where it may lead ------------------------------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_is_called(address: str) -> None:
    assert not addresses.may_call(ipaddress.ip_address(address), [])


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_called(address: str) -> None:
    assert addresses.may_call(ipaddress.ip_address(address), [])


def test_a_setting_allows_a_network_and_no_other() -> None:
    allowed = [ipaddress.ip_network("10.20.0.0/16")]
    assert addresses.may_call(ipaddress.ip_address("10.20.3.4"), allowed)
    assert addresses.may_call(ipaddress.ip_address("::ffff:10.20.3.4"), allowed)
    assert not addresses.may_call(ipaddress.ip_address("10.21.0.1"), allowed)
    assert not addresses.may_call(ipaddress.ip_address("::1"), allowed)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "::1", "[::1]"])
def test_no_spelling_of_this_machine_is_resolved(host: str) -> None:
    with pytest.raises(AddressError):
        asyncio.run(addresses.resolve(host, 80, []))


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A resolver of this test, which answers with other addresses each time; returns the names that it was asked."""
    asked: list[str] = []
    waiting = list(answers)

    async def getaddrinfo(self: Any, host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        found = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_with_one_private_address_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, ["93.184.215.14", "10.0.0.1"])
    with pytest.raises(AddressError, match=r"10\.0\.0\.1"):
        asyncio.run(addresses.resolve("rebound.example", 443, []))


def test_a_name_that_changes_its_address_gains_nothing(
    impatient: Services, make_receiver: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = make_receiver()
    port = int(judged.url.split(":")[2].split("/")[0])
    asked = _answering(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    delivery = _told_once(impatient, f"http://rebound.example:{port}/hook")
    assert (delivery.state, delivery.status) == ("delivered", 204)
    assert asked == ["rebound.example"], "it is resolved once: the address that was judged is the one that is called"
    ((headers, _),) = judged.received
    assert headers["host"] == f"rebound.example:{port}"


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0",
        "0.0",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "017700000001",
        "127.0.0.1.",
        "localhost",
        "x.LocalHost.",
    ],
)
def test_a_webhook_to_any_spelling_of_this_machine_is_refused_when_it_is_made(host: str) -> None:
    with pytest.raises(UnprocessableError, match="this URL is not called"):
        webhooks.check(f"http://{host}:8420/", [])
    webhooks.check(f"http://{host}:8420/", [ipaddress.ip_network("0.0.0.0/0")])


def test_a_delivery_to_a_private_address_is_not_sent(
    settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answering(monkeypatch, ["127.0.0.1"])
    strict = Settings(**settings.model_dump() | {"webhook_allowed_networks": [], "webhook_tries": 1})
    app = create_app(strict, start_scheduler=False)
    with TestClient(app):
        delivery = _told_once(app.state.services, receiver.url.replace("127.0.0.1", "inside.example"))
    assert delivery.state == "failed"
    assert "LAYERSWEEP_WEBHOOK_ALLOWED_NETWORKS" in str(delivery.last_error)
    assert receiver.received == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_the_certificate_must_be_of_the_name_although_the_address_is_called(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hook.example"]
    files = ["-addext", "subjectAltName=DNS:hook.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *files], check=True, capture_output=True)
    hosts: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hosts.append(self.headers["Host"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loopback = ipaddress.ip_address("127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(certificate))
    with ThreadingHTTPServer((str(loopback), 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def post(host: str) -> int:
            url = f"https://{host}:{server.server_port}/hook"
            return asyncio.run(call(url, host, [loopback], {}, b"{}", tls=trusting))

        assert post("hook.example") == 204
        with pytest.raises(ConnectError, match="Hostname mismatch"):
            post("other.example")
        server.shutdown()
    assert hosts == [f"hook.example:{server.server_port}"]


def test_an_answer_counts_though_its_body_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "ANSWER_SECONDS", 0.01)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(202)
            self.send_header("Content-Length", "5")
            self.end_headers()
            over.wait(30)

        def log_message(self, *args: Any) -> None:
            pass

    loopback = ipaddress.ip_address("127.0.0.1")
    with ThreadingHTTPServer((str(loopback), 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://hook.example:{server.server_port}/hook"
        tls = ssl.create_default_context()
        answered = asyncio.wait_for(call(url, "hook.example", [loopback], {}, b"{}", tls=tls), timeout=10)
        assert asyncio.run(answered) == 202
        over.set()
        server.shutdown()


def test_another_address_is_tried_where_one_takes_no_connection(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 2))

    async def resolve(*asked: object) -> list[Address]:
        return [first, second]

    async def handle(transport: object, request: Request) -> Response:
        if request.url.host == str(second):
            return Response(204, stream=ByteStream(b""))
        if request.extensions["timeout"]["connect"] is None:
            await asyncio.Event().wait()
        raise ConnectTimeout("nobody takes it")

    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(AsyncHTTPTransport, "handle_async_request", handle)
    settings = services.settings.model_copy(update={"webhook_seconds": 1.0})
    sending = WebhookSender(services.database, services.notifications, settings)
    taken = webhooks.Taken("D", "W", "https://hook.example/", "salt", b"{}", 1)
    assert asyncio.run(sending._try(taken)) == (204, None)


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https://user:word@example.com/",
        "https://example.com@10.0.0.1/",
        "https://example.com/#part",
        "https://example.com/\r\nX-Injected: yes",
        "https://example.com\r\nHost: internal/",
        "https://exa mple.com/",
        "https://example.com\\@10.0.0.1/",
        "https://example.com:99999/",
        "https://exämple.com/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:8420/",
        "http://[::ffff:10.0.0.1]/",
        "https://example.com/" + "x" * 2000,
    ],
)
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(UnprocessableError) as refused:
        webhooks.check(url, [])
    assert refused.value.problems[0].pointer == "/url"


def test_a_refusal_says_where_and_stores_nothing(client: TestClient) -> None:
    made = client.post("/v1/webhooks", json={"url": "https://example.com/"}).json()
    for method, path in (("POST", "/v1/webhooks"), ("PATCH", f"/v1/webhooks/{made['id']}")):
        for url in ("http://[::1]:8420/", "https://example.com/\r\nX-Injected: yes", "https://e.com/" + "x" * 2000):
            answer = client.request(method, path, json={"url": url})
            assert answer.status_code == 422, answer.text
            assert answer.json()["errors"][0]["pointer"] == "/url"
    (kept,) = client.get("/v1/webhooks").json()["items"]
    assert kept["url"] == "https://example.com/"


def test_a_project_has_only_so_many(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_OF_A_PROJECT", 1)
    assert client.post("/v1/webhooks", json={"url": "https://example.com/"}).status_code == 201
    assert client.post("/v1/webhooks", json={"url": "https://example.com/"}).status_code == 409


# --- secrets and access -----------------------------------------------------------------------------------------------


def test_a_secret_is_shown_once_and_stored_nowhere(client: TestClient, services: Services) -> None:
    body = {"url": "https://example.com/"}
    first = client.post("/v1/webhooks", json=body, headers={"Idempotency-Key": "once"})
    again = client.post("/v1/webhooks", json=body, headers={"Idempotency-Key": "once"})
    made = first.json()
    assert again.json() == made | {"secret": None}
    assert first.headers["location"] == f"/v1/webhooks/{made['id']}"
    for path in ("/v1/webhooks", f"/v1/webhooks/{made['id']}", "/v1/audit"):
        assert "whsec_" not in client.get(path).text
    row = services.database.read(lambda session: webhooks.get(session, made["id"]))
    assert made["secret"] not in " ".join(str(getattr(row, column.key)) for column in sa.inspect(Webhook).columns)
    assert webhooks.secret_of(server_key.read(services.settings, lambda: True), row.id, row.salt) == made["secret"]
    assert webhooks.secret_of(b"another key", row.id, row.salt) != made["secret"]
    rotated = client.post(f"/v1/webhooks/{made['id']}:rotate").json()["secret"]
    assert rotated.startswith("whsec_")
    assert rotated != made["secret"]


def test_the_servers_key_is_its_own_and_readable_by_nobody_else(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    keys = {server_key.read(settings, lambda: False) for _ in range(3)}
    assert len(keys) == 1
    assert len(keys.pop()) == 64
    assert (tmp_path / server_key.FILE).stat().st_mode & 0o077 == 0
    given = Settings(data_dir=tmp_path, secret_key="k" * 32)  # pyright: ignore[reportArgumentType]
    assert server_key.read(given, lambda: True) == b"k" * 32
    assert "kkkk" not in repr(given)
    with pytest.raises(ValueError, match="32 characters"):
        Settings(secret_key="short")  # pyright: ignore[reportArgumentType]


def test_no_new_key_is_made_while_there_are_webhooks(client: TestClient, services: Services) -> None:
    body = {"url": "https://127.0.0.1/"}
    made = client.post("/v1/webhooks", json=body).json()
    key = Path(services.settings.data_dir) / server_key.FILE
    kept = key.rename(key.with_name("elsewhere"))
    client.post(f"/v1/webhooks/{made['id']}:ping")
    send(services)
    (delivery,) = outbox(services)
    assert delivery.last_error
    for words in (str(key.absolute()), "LAYERSWEEP_DATA_DIR", "LAYERSWEEP_SECRET_KEY"):
        assert words in delivery.last_error
    for path in ("/v1/webhooks", f"/v1/webhooks/{made['id']}:rotate"):
        refused = client.post(path, json=body)
        assert (refused.status_code, "LAYERSWEEP_DATA_DIR" in refused.json()["detail"]) == (503, True)
    assert not key.exists()
    kept.rename(key)
    assert client.post(f"/v1/webhooks/{made['id']}:rotate").status_code == 200


def test_webhooks_are_for_administrators_of_their_project(client: TestClient, services: Services, app: FastAPI) -> None:
    def token(session: Any, scope: Any, project: str) -> dict[str, str]:
        if projects.find(session, project) is None:
            projects.create(session, project)
        secret = tokens.create(session, tokens.NewToken(scope, [scope], project), made_by="a test")[1]
        return {"Authorization": f"Bearer {secret}"}

    admin, other, submit = (
        services.database.write(lambda session, given=given: token(session, *given))
        for given in (("admin", "default"), ("admin", "vision"), ("submit", "default"))
    )
    services.access.forget()
    made = client.post("/v1/webhooks", json={"url": "https://example.com/"}, headers=admin).json()
    path = f"/v1/webhooks/{made['id']}"
    for method, where in (
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}:ping"),
        ("POST", f"{path}:rotate"),
        ("GET", f"{path}/deliveries"),
        ("POST", f"{path}/deliveries/x:resend"),
    ):
        body = {"enabled": True} if method == "PATCH" else None
        assert client.request(method, where, headers=submit, json=body).status_code == 403, where
        assert client.request(method, where, headers=other, json=body).status_code == 404, where
        assert client.request(method, where, json=body).status_code == 401, where
    assert client.get("/v1/webhooks", headers=other).json()["items"] == []
    assert client.delete("/v1/projects/default", headers=admin).status_code == 403
    assert client.delete(path, headers=admin).status_code == 204
    assert client.get(path, headers=admin).status_code == 404
    audit = [item["action"] for item in client.get("/v1/audit", headers=admin).json()["items"]]
    assert audit[:2] == ["webhook.delete", "webhook.create"]


# --- the task of a running service ------------------------------------------------------------------------------------


def test_a_running_service_sends_by_itself(
    settings: Settings, serve: Callable[[FastAPI], str], receiver: Receiver
) -> None:
    app = create_app(settings)
    serve(app)
    services: Services = app.state.services
    arrived = threading.Event()

    class Noticed(list[Any]):
        def append(self, item: Any) -> None:
            super().append(item)
            arrived.set()

    receiver.received = Noticed()

    def write(session: Any) -> None:
        allowed = settings.webhook_allowed_networks
        made = webhooks.create(
            session, project="default", url=receiver.url, events=["sweep.failed"], made_by="", allowed=allowed
        )
        webhooks.ping(session, made.id)

    services.database.write(write)
    assert arrived.wait(60)
