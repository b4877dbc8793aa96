"""The worker's side of the HTTP contract: one method a call, two kinds of failure.

ServiceError
├── UnreachableError   no answer, or one that says "later" (429, 5xx): try again
│   ├── ForeignAnswerError  something else answers in the service's place, as a proxy that has lost it
│   └── TokenRefusedError   401: try again for a while, another token may be put in the place of a revoked one
└── RefusedError       the service understood and said no, or it is at another address; `status` says how
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Generator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from layersweep.retries import RETRIED_STATUSES, Backoff, retry_after_seconds
from layersweep.transport import BearerToken
from workers.devices.time_shares import DeviceUse
from workers.engine.protocol import JsonObject
from workers.service.messages import (
    FinishAnswer,
    FinishRequest,
    LeaseAnswer,
    LeasesAnswer,
    QueueEntry,
    RegisteredWorker,
    RegistrationAnswer,
    RegistrationRequest,
    Report,
    ReportAnswer,
)
from workers.service.partial_file import arriving

Answer = TypeVar("Answer")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
UPLOAD_SECONDS = 600.0
_BESIDE_THE_WORK = "layersweep:beside_the_work"
"""The extension of a request that is made whether or not the worker gets on."""
BACKOFF = Backoff(first_seconds=0.25, most_seconds=10.0)
RETRYABLE = RETRIED_STATUSES | {500}
"""A worker's calls carry a key or an attempt: none acts twice."""


class ServiceError(Exception):
    """A call that did not succeed."""


class UnreachableError(ServiceError):
    """The service did not answer, or cannot now."""

    what = "does not answer"
    """What the service does, for a log."""


class ForeignAnswerError(UnreachableError):
    """What answers is not the service: a page, or nothing that is JSON."""

    what = "does not answer as Layersweep does"


class TokenRefusedError(UnreachableError):
    """The service does not know the token, or not any more."""

    what = "refuses the token"


class RefusedError(ServiceError):
    """The service's answer is no."""

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str = "",
        retry_after_seconds: float | None = None,
        pointers: Collection[str] = (),
    ) -> None:
        """`kind`: the last part of the problem's type; `pointers`: the places in the request that it is about."""
        super().__init__(f"{detail} (HTTP {status})")
        self.status = status
        self.detail = detail
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds
        self.pointers = frozenset(pointers)

    @property
    def lease_is_lost(self) -> bool:
        """True if a call about an attempt says that the attempt does not hold its trial any more."""
        return self.status in (404, 409, 410)


def retry_while_unreachable(
    call: Callable[[], Answer], *, seconds: float, wait: Callable[[float], Any] = time.sleep
) -> Answer:
    """Make a call again and again until it is answered; raise the last UnreachableError after `seconds`.

    `wait` sleeps between tries; a true result of it ("stop now") leaves one last try.
    """
    deadline = time.monotonic() + seconds
    for delay in BACKOFF:
        try:
            return call()
        except UnreachableError:
            if time.monotonic() + delay > deadline:
                raise
        if wait(delay):
            deadline = time.monotonic()
    raise AssertionError("waits never end")


class ServiceClient:
    """Calls of a worker. Thread-safe: the threads of leases and of slots use one client.

    A service that is older than a field refuses it: the call is made again without the field, and so are later ones.
    """

    def __init__(
        self,
        server: str,
        token: BearerToken | None = None,
        *,
        transport: httpx2.BaseTransport | None = None,
        alive_file: Path | None = None,
    ) -> None:
        """`alive_file` is touched before each call that belongs to the work, answered or not: an old one means that
        the worker hangs."""
        self.server = server.rstrip("/")
        self._unknown_fields: set[str] = set()
        self._http = httpx2.Client(
            base_url=self.server,
            auth=token,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
            event_hooks={} if alive_file is None else {"request": [lambda request: _show_life(alive_file, request)]},
        )

    def close(self) -> None:
        self._http.close()

    def register(self, registration: RegistrationRequest, key: str) -> RegistrationAnswer:
        """Register the worker.

        A registration whose answer was lost is the same one when it is sent again with the same `key`.
        """
        headers = {"Idempotency-Key": key}
        return _decoded(self._post("/v1/workers", registration, newer=("slots",), headers=headers))

    def deregister(self, worker: str) -> None:
        """Say that the worker stops."""
        with _failures():
            response = self._http.delete(f"/v1/workers/{worker}", timeout=CONNECT_SECONDS)
        _raise_for(response)

    def report_device_use(self, worker: str, use: DeviceUse) -> None:
        """Say how busy the worker's devices were, whatever the worker does. An older service refuses it."""
        path = f"/v1/workers/{worker}:report"
        # A worker that ends waits for it.
        self._post(path, {"device_use": use}, timeout=CONNECT_SECONDS, extensions={_BESIDE_THE_WORK: True})

    def claim(self, worker: str, wait_seconds: float, key: str, *, at_most: int = 1) -> list[LeaseAnswer]:
        """The next leases, at most so many; none if there is none within `wait_seconds`.

        A claim whose answer was lost gets the same leases when it is sent again with the same `key`. An older service
        gives one at a time.
        """
        body: dict[str, object] = {"worker": worker}
        if at_most > 1:
            body["at_most"] = at_most
        response = self._post(
            "/v1/leases",
            body,
            newer=("at_most",),
            headers={"Prefer": f"wait={wait_seconds:.0f}", "Idempotency-Key": key},
            timeout=httpx2.Timeout(ANSWER_SECONDS + wait_seconds, connect=CONNECT_SECONDS),
        )
        if response.status_code == 204 or not response.content:
            return []
        answer: LeaseAnswer | LeasesAnswer = _decoded(response)
        if "leases" in answer:
            return answer["leases"]
        return [answer]

    def heartbeat(self, trial: str, attempt: int) -> ReportAnswer:
        return _decoded(self._post(f"/v1/leases/{trial}/{attempt}:heartbeat", {}))

    def report(self, trial: str, attempt: int, report: Report) -> ReportAnswer:
        return _decoded(self._post(f"/v1/leases/{trial}/{attempt}:report", report))

    def finish(self, trial: str, attempt: int, finish: FinishRequest) -> LeaseAnswer | None:
        """Deliver a result; the next lease if the finish asks for one (`claim`) and there is one."""
        response = self._post(f"/v1/leases/{trial}/{attempt}:finish", finish, newer=("claim",))
        answer: FinishAnswer = _decoded(response) if response.content else {}
        return answer.get("lease")

    def release(self, trial: str, attempt: int, reason: str, *, charge: bool) -> None:
        self._post(f"/v1/leases/{trial}/{attempt}:release", {"reason": reason[:4000], "charge": charge})

    def download(
        self,
        dataset: str,
        split: str,
        path: Path,
        *,
        digest: str | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> str:
        """Write a split of a dataset to `path`, whole or not at all; the SHA-256 of what came, as hexadecimal digits.

        If `digest`, the hash that is expected, is given, what an earlier call had received when its connection broke
        is not sent again. `check` is called between chunks and may raise to give up.
        """
        return self._download(f"/v1/datasets/{dataset}/content", {"part": split}, path, check, digest)

    def download_checkpoint(self, digest: str, path: Path, *, check: Callable[[], None] = lambda: None) -> str:
        """As `download`, the weights of the checkpoint with this hash."""
        return self._download(f"/v1/checkpoints/{digest}/weights", {}, path, check, digest)

    def download_test(self, trial: str, attempt: int, path: Path, *, check: Callable[[], None] = lambda: None) -> str:
        """As `download`, the test split: for an attempt of a confirmation alone."""
        return self._download(f"/v1/leases/{trial}/{attempt}/test", {}, path, check)

    def download_training_state(
        self, trial: str, attempt: int, digest: str, path: Path, *, check: Callable[[], None] = lambda: None
    ) -> str:
        """As `download`, the state in which the training of the trial was stopped."""
        return self._download(f"/v1/leases/{trial}/{attempt}/training-state", {}, path, check, digest)

    def offer(self, trial: str, attempt: int, metrics: dict[str, float]) -> list[str]:
        """The names of the artifacts that the service wants of an attempt that will finish with these metrics."""
        return _decoded(self._post(f"/v1/leases/{trial}/{attempt}:offer", {"metrics": metrics}))["wanted"]

    def upload(self, trial: str, attempt: int, name: str, path: Path, digest: str) -> None:
        """Upload an artifact; `digest` is its Content-Digest."""
        with path.open("rb") as file, _failures():
            response = self._http.put(
                f"/v1/leases/{trial}/{attempt}/artifacts/{name}",
                content=file,
                headers={"Content-Digest": digest, "Content-Length": str(path.stat().st_size)},
                timeout=httpx2.Timeout(UPLOAD_SECONDS, connect=CONNECT_SECONDS),
            )
        _raise_for(response)

    def queue(self) -> list[QueueEntry]:
        """What waits, by what it needs of a worker."""
        return self._get("/v1/queue", {})["items"]

    def living_workers(self) -> list[RegisteredWorker]:
        """The workers that the service has heard of lately."""
        found: list[RegisteredWorker] = []
        page_token: str | None = ""
        while page_token is not None:
            page = self._get("/v1/workers", {"alive": "true", "page_size": "200", "page_token": page_token})
            found += page["items"]
            page_token = page["next_page_token"]
        return found

    def _get(self, path: str, params: Mapping[str, str]) -> JsonObject:
        with _failures():
            response = self._http.get(path, params={name: value for name, value in params.items() if value})
        _raise_for(response)
        return _decoded(response)

    def _download(
        self, url: str, params: dict[str, str], path: Path, check: Callable[[], None], digest: str | None = None
    ) -> str:
        with arriving(path, keep=digest is not None) as received, _failures():
            if received.sha256() == digest:
                return received.sha256()
            headers = {"Accept-Encoding": "identity"}
            if received.size_bytes:
                # The rest alone, if it is still of the same content; else all of it.
                headers |= {"Range": f"bytes={received.size_bytes}-", "If-Range": f'"{digest}"'}
            with self._http.stream("GET", url, params=params, headers=headers) as response:
                if response.status_code == HTTPStatus.OK:
                    received.restart()
                elif response.status_code >= 400:
                    response.read()
                if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    received.restart()
                    raise UnreachableError("more had arrived than there is: it is sent again")
                _raise_for(response)
                for chunk in response.iter_bytes():
                    check()
                    received.append(chunk)
            return received.sha256()

    def _post(
        self, path: str, body: Mapping[str, object], *, newer: Collection[str] = (), **options: Any
    ) -> httpx2.Response:
        """`newer`: fields that a service may be too old for."""
        known = {name: value for name, value in body.items() if name not in self._unknown_fields}
        with _failures():
            response = self._http.post(path, json=known, **options)
        try:
            _raise_for(response)
        except RefusedError as refusal:
            unknown = {name for name in newer if name in known and f"/{name}" in refusal.pointers}
            if refusal.status != 422 or not unknown:
                raise
            self._unknown_fields |= unknown
            return self._post(path, body, **options)
        return response


def _show_life(alive_file: Path, request: httpx2.Request) -> None:
    if _BESIDE_THE_WORK not in request.extensions:
        alive_file.touch()


@contextlib.contextmanager
def _failures() -> Generator[None]:
    try:
        yield
    except httpx2.TransportError as error:
        raise UnreachableError(str(error) or type(error).__name__) from error


def _decoded(response: httpx2.Response) -> Any:
    """The JSON of an answer. Raises ForeignAnswerError if it holds no object."""
    found = _json_object(response)
    if found is None:
        raise ForeignAnswerError(f"{response.headers.get('Content-Type', 'an unnamed type')} in place of JSON")
    return found


def _json_object(response: httpx2.Response) -> JsonObject | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _raise_for(response: httpx2.Response) -> None:
    status = response.status_code
    if status < 300:
        return
    if status < 400:
        place = response.headers.get("Location", "an address that it does not name")
        raise RefusedError(status, f"it sends on to {place}: name the service's own address")
    problem = _json_object(response) or {}
    detail = str(problem.get("detail") or response.reason_phrase or "no reason given")
    errors = _errors_of(problem)
    for item in errors:
        detail += f"; {item.get('pointer', '')}: {item.get('detail', '')}"
    if status == HTTPStatus.UNAUTHORIZED:
        raise TokenRefusedError(f"{detail} (HTTP {status})")
    if status in RETRYABLE:
        raise UnreachableError(f"{detail} (HTTP {status})")
    pointers = [str(item.get("pointer", "")) for item in errors]
    retry_after = retry_after_seconds(response.headers.get("Retry-After"))
    raise RefusedError(status, detail, _kind(problem), retry_after, pointers)


def _errors_of(problem: JsonObject) -> list[JsonObject]:
    """The single problems; none if another service or a proxy has `errors` of its own form."""
    errors = problem.get("errors")
    return [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []


def _kind(problem: JsonObject) -> str:
    return re.split("[:/]", str(problem.get("type", "")))[-1]
