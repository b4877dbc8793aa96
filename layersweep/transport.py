"""All HTTP of the client: addresses, tokens, retries, and answers turned into errors."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeAlias, cast

import httpx2

from layersweep import files
from layersweep.errors import (
    InvalidUsageError,
    LayersweepError,
    NotAuthorizedError,
    ResponseError,
    ServiceFailureError,
    UnreachableError,
)
from layersweep.json_values import JsonObject, plain
from layersweep.retries import RETRIED_STATUSES, Backoff, retry_after_seconds
from layersweep.version import __version__

BACKOFF = Backoff(first_seconds=0.15, most_seconds=7.5, jitter=1 / 3)
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
PAGE_SIZE = 200
TOKEN = "LAYERSWEEP_TOKEN"
TOKEN_REFUSALS = frozenset({401, 429})
"""429: too many wrong tokens came from this address, so that one more is not said to be wrong."""
PROXY_STATUSES = frozenset({401, 403, 407, 408, 413, 414, 429, 431, 500, 502, 503, 504})
"""That proxies answer by themselves."""
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

QueryValue: TypeAlias = str | float | Sequence[str] | None
Query: TypeAlias = Mapping[str, QueryValue]
"""Parameters of a query; one that is None is left out."""


class BearerToken(httpx2.Auth):
    """The token of each request. Thread-safe.

    If the service refuses one that came from a file (LAYERSWEEP_TOKEN_FILE), the file is read again: a token that
    was replaced there is taken, and the request is sent once more if its body can be.
    """

    def __init__(self, value: str, *, variable: str | None = None) -> None:
        """`variable`: of the environment, that the value came from; None: it never changes. Raises InvalidUsageError
        for what is no token."""
        self._variable = variable
        self._value = header_value(f"token ({variable or TOKEN})", value)

    @classmethod
    def of_environment(cls, *variables: str) -> BearerToken | None:
        """The token in the first of these variables that has one."""
        for variable in variables or (TOKEN,):
            if value := os.environ.get(variable):
                return cls(value, variable=variable)
        return None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        sent = self._value
        request.headers["Authorization"] = f"Bearer {sent}"
        response = yield request
        if (
            response.status_code in TOKEN_REFUSALS
            and self._is_replaced(sent)
            and isinstance(request.stream, httpx2.ByteStream)
        ):
            request.headers["Authorization"] = f"Bearer {self._value}"
            yield request

    @property
    def origin(self) -> str:
        """Where it is from, to be told."""
        return f"that of {self._variable}" if self._variable else f"the given one, not that of {TOKEN}"

    @property
    def value(self) -> str:
        """The token itself: a secret."""
        return self._value

    def _is_replaced(self, refused: str) -> bool:
        """Whether there is another token than the refused one: another thread may have found it."""
        if self._variable is not None and self._value == refused:
            files.read_again(os.environ, self._variable)
            with suppress(InvalidUsageError):
                self._value = header_value("token", os.environ.get(self._variable) or "")
        return self._value != refused


class Transport:
    """Sends requests to one service and retries what may be retried.

    Retried are lost connections and the statuses 429, 502, 503 and 504, with exponential backoff and jitter or after
    the time that `Retry-After` names, for `retry_seconds` from the first failure. Requests that could act twice are
    sent once: a POST is retried only when it carries an `Idempotency-Key`, or no connection was made.

    Raises UnreachableError when no answer came, and a ResponseError for every answer of 400 and above.
    """

    def __init__(
        self,
        server: str,
        token: str | BearerToken | None,
        *,
        project: str | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = base_url(server)
        self.timeout_seconds = timeout_seconds
        self.retry_seconds = retry_seconds
        self.on_retry: Callable[[LayersweepError, float], object] | None = None
        """Called before each retry, with why it is needed and for how many seconds there will be others."""
        self._sleep = sleep
        headers = {"User-Agent": f"layersweep/{__version__}", "Accept": "application/json"}
        if project:
            headers["Layersweep-Project"] = header_value("project (LAYERSWEEP_PROJECT)", project)
        with environment_faults():
            self._http = httpx2.Client(
                base_url=self.server,
                headers=headers,
                auth=BearerToken(token) if isinstance(token, str) and token else token or None,
                timeout=timeout_seconds,
                transport=transport,
                trust_env=trusts_environment(httpx2.URL(self.server)),
            )

    def close(self) -> None:
        self._http.close()

    def sleep(self, seconds: float) -> None:
        """Wait before a retry."""
        self._sleep(seconds)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        retry_seconds: float | None = None,
        **body: Any,
    ) -> httpx2.Response:
        """Send one request, with retries, and return an answer below 400 (304 included)."""
        headers = dict(headers or {})
        if "json" in body:
            body["json"] = plain(body["json"], "the request")

        def send() -> httpx2.Response:
            return self._http.request(
                method,
                path,
                params=_without_none(params),
                headers=headers,
                timeout=self.timeout_seconds if timeout_seconds is None else timeout_seconds,
                **body,
            )

        return self._retried(
            send,
            may_repeat=method in IDEMPOTENT_METHODS or "Idempotency-Key" in headers,
            patience_seconds=self.retry_seconds if retry_seconds is None else retry_seconds,
        )

    def download(self, path: str, target: IO[bytes], *, timeout_seconds: float) -> str:
        """Write a file of the service to `target` as it arrives, anew where it breaks off; its SHA-256 in hex.

        `timeout_seconds`: without a byte.
        """
        digest, heard_at = hashlib.sha256(), 0.0

        def send() -> httpx2.Response:
            nonlocal digest, heard_at
            digest = hashlib.sha256()
            target.seek(0)
            target.truncate()
            with self._http.stream("GET", path, headers={"Accept": "*/*"}, timeout=timeout_seconds) as response:
                if error_of(response) is None:
                    for piece in response.iter_bytes():
                        digest.update(piece)
                        target.write(piece)
                        heard_at = time.monotonic()
            return response

        self._retried(send, may_repeat=True, patience_seconds=self.retry_seconds, heard_at=lambda: heard_at)
        return digest.hexdigest()

    def _retried(
        self,
        send: Callable[[], httpx2.Response],
        *,
        may_repeat: bool,
        patience_seconds: float,
        heard_at: Callable[[], float] = lambda: 0.0,
    ) -> httpx2.Response:
        """The answer, below 400, of the first call of `send` that has one. `heard_at`: when the last piece came."""
        waited_seconds = 0.0
        for tries in range(1, 1_000_000):
            started = time.monotonic()
            # What was not sent cannot be done twice.
            was_sent = True
            try:
                response = send()
                error = error_of(response)
            except httpx2.RequestError as problem:
                error = self._unreachable(problem)
                was_sent = not isinstance(problem, httpx2.ConnectError)
            else:
                if error is None:
                    return response
            retryable = isinstance(error, UnreachableError) or error.status in RETRIED_STATUSES or is_in_flight(error)
            waited_seconds += time.monotonic() - max(started, heard_at())
            left_seconds = patience_seconds - waited_seconds if may_repeat or not was_sent else 0.0
            # The last try is when patience ends, not up to a wait before.
            delay_seconds = min(BACKOFF.seconds(tries), left_seconds)
            if isinstance(error, ResponseError) and error.retry_after_seconds is not None:
                delay_seconds = error.retry_after_seconds
            if not retryable or left_seconds <= 0 or delay_seconds > left_seconds:
                raise self._with_address(error)
            if self.on_retry is not None:
                self.on_retry(error, left_seconds)
            self._sleep(delay_seconds)
            waited_seconds += delay_seconds
        raise AssertionError("unreachable: the loop ends by returning or raising")

    def json(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded body of an answer; None if it has none."""
        response = self.request(method, path, **arguments)
        return decode(response) if response.content else None

    def object(self, method: str, path: str, *, named_by: str = "id", **arguments: Any) -> Any:
        """The decoded body of an answer that is one object of the service: JSON with an `id`."""
        found = self.json(method, path, **arguments)
        if not isinstance(found, dict) or named_by not in found:
            raise ServiceFailureError(502, {"type": "not-layersweep", "detail": foreign(f"{self.server}{path}")})
        return cast("JsonObject", found)

    def file(self, path: str) -> bytes:
        """A file whose ETag is its SHA-256. Raises ServiceFailureError for bytes that are not those."""
        response = self.request("GET", path)
        if hashlib.sha256(response.content).hexdigest() not in response.headers.get("ETag", ""):
            raise ServiceFailureError(502, {"type": "not-layersweep", "detail": foreign(f"{self.server}{path}")})
        return response.content

    def delete(self, path: str) -> None:
        """Delete it. An answer with a body is not from the service, so it raises instead of reporting success."""
        if self.request("DELETE", path).content:
            raise ServiceFailureError(502, {"type": "not-layersweep", "detail": foreign(f"{self.server}{path}")})

    def page(self, path: str, params: Query) -> Any:
        """The decoded body of an answer that is a list's page."""
        found = self.json("GET", path, params=params)
        if not isinstance(found, dict) or not isinstance(found.get("items"), list):
            raise ServiceFailureError(502, {"type": "not-layersweep", "detail": foreign(f"{self.server}{path}")})
        return cast("JsonObject", found)

    def pages(self, path: str, params: Query | None = None) -> Iterator[Any]:
        """The items of all pages of a list, fetched as they are needed."""
        token: str | None = None
        while True:
            page = self.page(path, {**(params or {}), "page_size": PAGE_SIZE, "page_token": token})
            yield from page["items"]
            token = page.get("next_page_token")
            if token is None:
                return

    def stream(self, path: str, *, params: Query) -> Iterator[bytes]:
        """The body of an answer, piece by piece. Not retried."""
        try:
            with self._http.stream("GET", path, params=_without_none(params), headers={"Accept": "*/*"}) as response:
                if (error := error_of(response)) is not None:
                    raise self._with_address(error)
                yield from response.iter_bytes()
        except httpx2.RequestError as problem:
            raise self._unreachable(problem) from problem

    @contextmanager
    def events(self, path: str, *, headers: Mapping[str, str]) -> Generator[httpx2.EventSource]:
        """One connection to a stream of server-sent events. Not retried: the caller knows where it was."""
        timeout = httpx2.Timeout(self.timeout_seconds, read=max(60.0, self.timeout_seconds))
        accept = {"Accept": "text/event-stream", **headers}
        try:
            with self._http.stream("GET", path, headers=accept, timeout=timeout) as response:
                if (error := error_of(response)) is not None:
                    raise self._with_address(error)
                yield httpx2.EventSource(response)
        except httpx2.RequestError as problem:
            raise self._unreachable(problem) from problem

    def _with_address(self, error: LayersweepError) -> LayersweepError:
        """The error, with a note of who refused the token."""
        if isinstance(error, NotAuthorizedError):
            token = self._http.auth
            sent = (
                f"the token is {token.origin}" if isinstance(token, BearerToken) else f"no token was sent: set {TOKEN}"
            )
            error.add_note(f"The service is {self.server} (--server, LAYERSWEEP_SERVER); {sent}")
        return error

    def _unreachable(self, problem: httpx2.RequestError) -> UnreachableError:
        reason = str(problem) or type(problem).__name__
        if isinstance(problem, httpx2.ConnectError):
            return UnreachableError(
                f"no service answers at {self.server}: {reason}. Start one with `layersweep serve`, "
                "or name another with --server or LAYERSWEEP_SERVER"
            )
        return UnreachableError(f"the connection to {self.server} was lost: {reason}")


def trusts_environment(url: httpx2.URL) -> bool:
    """Whether to use the environment's proxy for this address: no proxy can reach this machine's loopback addresses."""
    return url.host not in LOOPBACK_HOSTS


@contextmanager
def environment_faults() -> Generator[None]:
    """Raise InvalidUsageError if connections cannot be made ready as the environment says."""
    try:
        yield
    except (OSError, ValueError, ImportError, httpx2.InvalidURL) as problem:
        raise InvalidUsageError(
            f"the environment's proxy or certificates (HTTPS_PROXY, SSL_CERT_FILE, ...) cannot be used: {problem}"
        ) from problem


def is_in_flight(error: ResponseError) -> bool:
    """True if the service is already working on this request: it was sent before, and its answer was lost."""
    return error.status == 409 and error.type == "in-flight"


def error_of(response: httpx2.Response) -> ResponseError | None:
    """The error that an answer stands for, read to its end; None for one to be used, of which nothing is read."""
    status = response.status_code
    if status < 300 or status == 304:
        return None
    if status < 400:
        place = response.headers.get("Location", "an address that it does not name")
        detail = f"{response.url} sends on to {place}: name the service's own address (--server, LAYERSWEEP_SERVER)"
        return ServiceFailureError(status, {"type": "redirect", "detail": detail})
    response.read()
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "detail" not in document or "type" not in document:
        return _not_of_layersweep(response)
    return ResponseError.of(
        status,
        cast("JsonObject", document),
        retry_after_seconds=retry_after_seconds(response.headers.get("Retry-After")),
    )


def _not_of_layersweep(response: httpx2.Response) -> ResponseError:
    """The error that an answer stands for that is no problem document: of a proxy in front, or of another service."""
    status = response.status_code
    message = f"{response.url.copy_with(query=None)} answered {status} {response.reason_phrase}".rstrip()
    text = " ".join(response.text.split())[:200]
    if text and not text.startswith(("<", "{")):
        message += f" ({text})"
    is_of_a_proxy = status in PROXY_STATUSES
    detail = f"{message}, not as Layersweep does: " + (
        "a proxy in front of it, or another service?"
        if is_of_a_proxy
        else "this is not a Layersweep service (--server and LAYERSWEEP_SERVER take its address without a path)"
    )
    document: JsonObject = {"type": "not-layersweep", "title": response.reason_phrase, "detail": detail}
    seconds = retry_after_seconds(response.headers.get("Retry-After"))
    kind = ResponseError.of if is_of_a_proxy else ServiceFailureError
    return kind(status, document, retry_after_seconds=seconds)


def decode(response: httpx2.Response) -> Any:
    """The JSON body of an answer. Raises ServiceFailureError for an answer that is not from a Layersweep service."""
    try:
        return response.json()
    except ValueError:
        kind = response.headers.get("Content-Type", "an unnamed type")
        detail = f"{response.url} answered with {kind} instead of JSON: this is not a Layersweep service"
        raise ServiceFailureError(response.status_code, {"type": "not-json", "detail": detail}) from None


def foreign(address: str) -> str:
    """The message for an answer that is not from a Layersweep service."""
    return f"{address} did not answer as Layersweep does: this is not a Layersweep service"


def _without_none(params: Query | None) -> dict[str, str | float | Sequence[str]] | None:
    if params is None:
        return None
    return {name: value for name, value in params.items() if value is not None}


def header_value(what: str, value: str) -> str:
    """A value for a header, without the line break that ends a file."""
    value = value.strip()
    if not value.isascii() or not value.isprintable() or not value:
        raise InvalidUsageError(f"the {what} is empty, or has characters that none has: was something else pasted?")
    return value


def base_url(server: str) -> str:
    """A service's address. Raises InvalidUsageError if it is invalid."""
    try:
        url = httpx2.URL(server)
    except (httpx2.InvalidURL, ValueError) as problem:
        raise InvalidUsageError(f"the server {server!r} is not a URL: {problem}") from problem
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidUsageError(f"the server {server!r} is not a URL: write it like http://127.0.0.1:8420")
    if url.path.rstrip("/").endswith("/v1"):
        raise InvalidUsageError(f"the server {server!r} has a path: name it without /v1, like http://127.0.0.1:8420")
    return server.rstrip("/")
