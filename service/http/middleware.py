"""What every request passes first: who calls, from which page, characters that no database stores; the access log."""

from __future__ import annotations

import dataclasses
import logging
import random
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast
from urllib.parse import quote, unquote_plus, urlsplit

import anyio
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layers.problems import below
from layersweep import logs
from service.auth import access
from service.auth.access import Access, Caller
from service.auth.rate_limits import TimedBody
from service.common import metrics, tracing
from service.database import outages
from service.errors import (
    ForbiddenError,
    NotFoundError,
    PayloadTooLargeError,
    ServiceError,
    TooSlowError,
    UnauthorizedError,
    UnavailableError,
    UnprocessableError,
)
from service.http.error_handlers import MEDIA_TYPE, SHOWN, respond
from service.settings import Settings, is_loopback

COOKIE = "layersweep_token"
GONE = 499
"""What is logged and counted if a client went away before it had sent all: no answer reaches it."""
LOGIN_PATH = "/login"

_log = logging.getLogger("service.access")
_TOO_LARGE = "the body is larger than this path accepts"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise."""


class RequestMiddleware:
    """ASGI middleware. It finds the caller, who is `request.state.caller` from here on, or refuses the request.

    A token comes as `Authorization: Bearer <token>`, or in the cookie that `/login` sets. With the cookie, what changes
    anything must come from a page of this origin. `open_paths` need no token: their routes say so.
    """

    def __init__(
        self, app: ASGIApp, access: Access, settings: Settings, open_paths: Sequence[re.Pattern[str]] = ()
    ) -> None:
        self._app = app
        self._access = access
        self._limits = access.limits
        self._trusted_hosts = frozenset(settings.trusted_hosts)
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        is_replaced = False
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        tracing.annotate("layersweep.request_id", request_id)
        body = self._limits.body(receive)

        async def completed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = GONE if body.is_broken_off else message["status"]
                _complete(MutableHeaders(scope=message), request_id)
            await send(message)

        async def watched(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and (refusal := _refused_body(message, body)) is not None:
                is_replaced = True
                await respond(refusal, scope["path"])(scope, receive, completed)
            if not is_replaced:
                await completed(message)

        try:
            with metrics.HTTP_RUNNING.track_inprogress(), logs.about(request_id=request_id), ExitStack() as at_end:
                try:
                    scope["state"]["caller"] = caller = await self._admit(scope, headers)
                    scope["state"]["at_end"] = at_end
                    at_end.enter_context(self._limits.request(caller.token_id or caller.name))
                except ServiceError as refusal:
                    await self._refused(refusal, scope, headers)(scope, receive, watched)
                else:
                    try:
                        await self._app(scope, body, watched)
                    except Exception as error:
                        if not (body.is_gone and _is_of_leaving(error)):
                            raise
                        # Nobody is there to be answered; the line below says so.
                        status = GONE if body.is_broken_off else status
        finally:
            seconds = time.perf_counter() - started
            _log_request(scope, status, seconds)
            metrics.count_request(scope, status, seconds)

    async def _admit(self, scope: Scope, headers: Headers) -> Caller:
        """Who calls, or a ServiceError with why the request goes no further."""
        path: str = scope["path"]
        method: str = scope["method"]
        _host_name(headers)
        try:
            caller = await self._caller(scope, path, method, headers)
            named = headers.get(access.PROJECT_HEADER)
            if named is not None:
                access.check_named(caller, named)
                caller = dataclasses.replace(caller, named=named)
        except (OperationalError, PoolTimeoutError) as error:
            outages.log(_log, f"{method} {path!r} was answered 503", error)
            raise (outages.answer_to(error) or UnavailableError("the database does not answer")) from None
        if method not in access.SAFE_METHODS and not _is_same_origin(headers):
            raise ForbiddenError("pages of another origin may not change anything")
        if "\0" in path:
            raise NotFoundError("no path contains a NUL character")
        for part in scope["query_string"].split(b"&"):
            if b"%00" in part or b"\0" in part:
                name = unquote_plus(part.partition(b"=")[0].decode("latin-1")).replace("\0", "")
                raise UnprocessableError.at(
                    below("", name[:SHOWN]), "the query contains a NUL character", "leave it out"
                )
        return caller

    async def _caller(self, scope: Scope, path: str, method: str, headers: Headers) -> Caller:
        if any(each.match(path) for each in self._open_paths):
            return access.NOBODY
        if await self._access.is_open():
            self._check_host(headers)
            return access.OPEN
        bearer = _bearer(headers)
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        secret = bearer or cookie
        if not secret:
            raise UnauthorizedError(
                "send a token as `Authorization: Bearer <token>`; on the service's machine, "
                "`layersweep token create --database --name NAME --scope SCOPE` creates one"
            )
        caller = await self._access.caller(secret, address_of(scope))
        if bearer is None and method not in access.SAFE_METHODS and not _comes_from_own_page(headers):
            raise ForbiddenError(
                "with the cookie, only a page of this service may change anything: send the token instead"
            )
        return caller

    def _check_host(self, headers: Headers) -> None:
        """While everybody may do everything, a page elsewhere must not get in by a name that leads to this machine."""
        name = _host_name(headers)
        if not is_loopback(name) and name not in self._trusted_hosts:
            raise ForbiddenError(
                f"without tokens this service answers on loopback addresses only, not as {name!r}: "
                "make a token with `layersweep token create`"
            )

    def _refused(self, refusal: ServiceError, scope: Scope, headers: Headers) -> Response:
        path: str = scope["path"]
        is_of_page = not path.startswith("/v1") and "text/html" in headers.get("accept", "")
        # A part of a page is refused: the login page would be put into the page, whose script loads all of it anew.
        wants_page = scope["method"] == "GET" and is_of_page and headers.get("hx-request") != "true"
        if isinstance(refusal, UnauthorizedError) and wants_page:
            return RedirectResponse(_login_address(path, refusal.detail), 303)
        is_unknown = isinstance(refusal, UnauthorizedError)
        return respond(refusal, path, {"WWW-Authenticate": 'Bearer realm="layersweep"'} if is_unknown else None)


def _login_address(path: str, detail: str) -> str:
    """Of the login page, which leads on to `path` and says why the token was refused."""
    reason = next((name for name, words in access.REFUSALS.items() if words == detail), None)
    return f"{LOGIN_PATH}?next={quote(path, safe='/')}" + (f"&refused={reason}" if reason else "")


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    """Without the query, headers and bodies: they may hold what a caller would not want in a log."""
    state, parameters = scope["state"], scope.get("path_params") or {}
    caller: Caller | None = state.get("caller")
    facts = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 4),
        "address": address_of(scope),
        "token_id": None if caller is None else caller.token_id,
        **{name: parameters[name] for name in ("sweep", "trial", "attempt") if name in parameters},
    }
    _log.info("%s %r %d %.3f s", scope["method"], scope["path"], status, seconds, extra={logs.FACTS: facts})


def address_of(scope: Scope) -> str:
    """Where a request comes from: the address of the connection, or what a trusted proxy says of its own."""
    client: tuple[str, int] | None = scope.get("client")
    return client[0] if client else ""


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    # No secret: a system call for each would hand the interpreter to another thread amid the request.
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"


def _complete(headers: MutableHeaders, request_id: str) -> None:
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers["X-Request-ID"] = request_id


def _refused_body(start: Message, body: TimedBody) -> ServiceError | None:
    """Why the body was refused, if the framework says it in words of its own, whatever a handler says."""
    if (
        start["status"] == PayloadTooLargeError.status
        and Headers(raw=start["headers"]).get("content-type") != MEDIA_TYPE
    ):
        return PayloadTooLargeError(_TOO_LARGE)
    return body.refusal if start["status"] != TooSlowError.status else None


def _is_of_leaving(error: BaseException) -> bool:
    """Whether an error is nothing but a stream that ended because its client went away."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_of_leaving(each) for each in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, (ClientDisconnect, anyio.BrokenResourceError, anyio.ClosedResourceError))


def _bearer(headers: Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None


def _host_name(headers: Headers) -> str:
    """The name in the Host header. Raises ForbiddenError for what is none: every address that is made from it would
    fail."""
    try:
        parts = urlsplit(f"//{headers.get('host', '')}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ForbiddenError("the Host header holds no name of a host") from None
    return name


def _is_same_origin(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False


def _comes_from_own_page(headers: Headers) -> bool:
    return headers.get("sec-fetch-site") == "same-origin" or (
        headers.get("origin") is not None and _is_same_origin(headers)
    )
