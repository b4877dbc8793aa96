"""Sends what lies in the outbox of the webhooks: one task of each API process, a few deliveries at a time.

What is called was chosen by a user, so it is called with care: only at an address that `service.events.addresses` lets
through and that the connection then goes to, through no proxy, without following redirects, for a bounded time, and
no more of the answer is read than is needed to let go of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Sequence
from functools import cached_property
from urllib.parse import urlsplit

import httpx2
from anyio import to_thread

from service.common import metrics, tracing
from service.common.notifications import WEBHOOKS, Notifications
from service.database import outages
from service.database.sessions import Database
from service.events import addresses, server_key, webhooks
from service.events.addresses import Address, AddressError
from service.events.webhooks import Taken
from service.settings import Settings

AT_A_TIME = 16
"""Deliveries under way in one process; one of a webhook, so that one that hangs holds up no other."""
STOP_SECONDS = 3.0
_MARGIN_SECONDS = 20.0
"""A delivery stays taken for so much longer than a try may last."""
_ANSWER_BYTES = 4096
ANSWER_SECONDS = 1.0
"""How long the beginning of an answer's body is waited for: its status is all that counts."""
_RETRY_AFTER_TROUBLE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class WebhookSender:
    """The task. It never raises for what a receiver does; what the database does is logged and tried again."""

    def __init__(self, database: Database, notifications: Notifications, settings: Settings) -> None:
        self._database = database
        self._notifications = notifications
        self._settings = settings
        self._key: bytes | None = None
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def run(self) -> None:
        """Send what is due, until stopped; what is under way then has a moment to end, and is sent again otherwise."""
        while not self._stopping.is_set():
            since = self._notifications.version(WEBHOOKS)
            pause = self._settings.scheduler_idle_seconds
            try:
                await self.send_due()
            except Exception as error:  # noqa: BLE001 - logged: the database may be away, and nothing is lost by trying again
                outages.log(_log, "the webhooks' outbox could not be read", error)
                pause = _RETRY_AFTER_TROUBLE_SECONDS
            await self._notifications.wait(WEBHOOKS, pause, since=since)
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=STOP_SECONDS)
        for task in self._busy.values():
            task.cancel()

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping.set()
        self._notifications.publish(WEBHOOKS)

    async def send_due(self) -> None:
        """Begin to send what is due, as far as there is room."""
        seconds = self._settings.webhook_seconds + _MARGIN_SECONDS
        while len(self._busy) < AT_A_TIME and not self._stopping.is_set():
            busy = list(self._busy)
            if not await to_thread.run_sync(
                self._database.read, lambda session, busy=busy: webhooks.any_due(session, busy)
            ):
                return
            taken = await to_thread.run_sync(
                self._database.write, lambda session, busy=busy: webhooks.take(session, busy, seconds)
            )
            if taken is None:
                return
            task = asyncio.create_task(self._deliver(taken), name=f"webhook {taken.webhook_id}")
            self._busy[taken.webhook_id] = task
            task.add_done_callback(lambda _, webhook_id=taken.webhook_id: self._done(webhook_id))

    async def wait_idle(self) -> None:
        """Wait for what is under way."""
        while self._busy:
            await asyncio.wait(self._busy.values())

    def _done(self, webhook_id: str) -> None:
        del self._busy[webhook_id]
        # There may be more for this webhook.
        self._notifications.publish(WEBHOOKS)

    async def _deliver(self, taken: Taken) -> None:
        with tracing.span("webhook.deliver", **{"layersweep.webhook": taken.webhook_id}):
            status, error = await self._try(taken)
        most = self._settings.webhook_tries
        try:
            state = await to_thread.run_sync(
                self._database.write,
                lambda session: webhooks.record_try(session, taken, status=status, error=error, most_tries=most),
            )
        except Exception as failure:  # noqa: BLE001 - logged: it is sent again when its time is over
            outages.log(_log, f"how delivery {taken.id} went could not be written", failure)
            return
        metrics.WEBHOOK_TRIES.labels({"pending": "retried"}.get(state or "", state or "lost")).inc()
        if error is None:
            _log.info("delivery %s of webhook %s: delivered, try %d", taken.id, taken.webhook_id, taken.tries)
        else:
            level = logging.WARNING if state == "failed" else logging.INFO
            _log.log(level, "delivery %s of webhook %s, try %d: %s", taken.id, taken.webhook_id, taken.tries, error)

    async def _try(self, taken: Taken) -> tuple[int | None, str | None]:
        """One try: the status of the answer, and why it was no delivery (None: it was one)."""
        seconds = self._settings.webhook_seconds
        try:
            async with asyncio.timeout(seconds):
                status = await self._post(taken)
        except TimeoutError:
            return None, f"no answer within {seconds:g} s"
        except (AddressError, server_key.MissingKeyError) as error:
            return None, str(error)
        except (httpx2.HTTPError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"
        if 200 <= status < 300:
            return status, None
        return status, "it answered with a redirect, which is not followed" if status // 100 == 3 else "it refused"

    async def _post(self, taken: Taken) -> int:
        host, port = addresses.check_url(taken.url)
        allowed = self._settings.webhook_allowed_networks
        found = await addresses.resolve(host, port, allowed)
        if self._key is None:
            self._key = await to_thread.run_sync(
                server_key.read, self._settings, lambda: self._database.read(webhooks.any_exist)
            )
        secret = webhooks.secret_of(self._key, taken.webhook_id, taken.salt)
        headers = webhooks.headers_of(secret, taken.id, int(time.time()), taken.body)
        # So that there is time for another address if one takes no connection and says nothing.
        connect_seconds = self._settings.webhook_seconds / (len(found) + 1)
        return await call(taken.url, host, found, headers, taken.body, tls=self._tls, connect_seconds=connect_seconds)


async def call(
    url: str,
    host: str,
    found: Sequence[Address],
    headers: dict[str, str],
    body: bytes,
    *,
    tls: ssl.SSLContext,
    connect_seconds: float | None = None,
) -> int:
    """POST to the first of the addresses that takes a connection, each within `connect_seconds`; the status of the
    answer.

    The connection goes to the address itself; the name is what the certificate is checked against and what `Host` says.
    """
    parts = urlsplit(url)
    sent = {
        **headers,
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": "Layersweep-Webhook/1",
        "Accept-Encoding": "identity",
    }
    failure: httpx2.TransportError | None = None
    transport = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False)
    timeout = httpx2.Timeout(None, connect=connect_seconds)
    async with httpx2.AsyncClient(
        transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
    ) as client:
        for address in found:
            target = parts._replace(netloc=_netloc(address, parts.port)).geturl()
            request = client.build_request(
                "POST", target, headers=sent, content=body, extensions={"sni_hostname": host}
            )
            try:
                response = await client.send(request, stream=True)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
                continue
            try:
                # Enough of a short answer is read to end it in order; a long or a slow one is cut off.
                with contextlib.suppress(TimeoutError, httpx2.TransportError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await anext(response.aiter_raw(_ANSWER_BYTES), None)
            finally:
                await response.aclose()
            return response.status_code
    raise failure or httpx2.ConnectError(f"{host} has no address")


def _netloc(address: Address, port: int | None) -> str:
    shown = f"[{address}]" if address.version == 6 else str(address)
    return shown if port is None else f"{shown}:{port}"
