"""What every request passes first: the token, the origin, characters that no database stores; and the access log."""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
import time
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Forbidden, NotFound, PayloadTooLarge, ServiceError, Unauthorized, Unprocessable
from service.problems import MEDIA_TYPE, respond

_log = logging.getLogger("service.access")
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_TOO_LARGE = "the body is larger than this path accepts"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware. With a token set, `/v1` wants `Authorization: Bearer <token>`.

    For reading, HTTP Basic with the token as the password does as well: that is what a browser can ask its user for.
    """

    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._token = None if token is None else token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        too_large = False

        async def watched(message: Message) -> None:
            nonlocal status, too_large
            if message["type"] == "http.response.start":
                status = message["status"]
                # The framework answers a body over its limit in plain text, whatever a handler says.
                too_large = status == PayloadTooLarge.status and not _is_problem(message)
                if too_large:
                    await respond(PayloadTooLarge(_TOO_LARGE), scope["path"])(scope, receive, send)
            if not too_large:
                await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, watched)
            else:
                await respond(refusal, scope["path"], _headers(refusal))(scope, receive, watched)
        finally:
            # Without the query: it may hold what a caller would not want in a log.
            seconds = time.perf_counter() - started
            _log.info("%s %r %d %.3f s", scope["method"], scope["path"], status, seconds)

    def _refusal(self, scope: Scope) -> ServiceError | None:
        headers = Headers(scope=scope)
        path: str = scope["path"]
        if self._token is not None and path not in _OPEN_PATHS and not self._is_authorized(scope["method"], headers):
            return Unauthorized("send the service's token as `Authorization: Bearer <token>`")
        if scope["method"] not in _SAFE_METHODS and not _is_same_origin(headers):
            return Forbidden("a page of another origin may not change anything here")
        if "\0" in path:
            return NotFound("no path contains a NUL character")
        if b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
            return Unprocessable("the query contains a NUL character")
        return None

    def _is_authorized(self, method: str, headers: Headers) -> bool:
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given = credentials.strip().encode()
        elif scheme.lower() == "basic" and method in _SAFE_METHODS:
            given = _password(credentials)
        else:
            return False
        assert self._token is not None
        return secrets.compare_digest(given, self._token)


def _is_problem(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type") == MEDIA_TYPE


def _password(credentials: str) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _is_same_origin(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _headers(refusal: ServiceError) -> dict[str, str]:
    if refusal.status != Unauthorized.status:
        return {}
    return {"WWW-Authenticate": 'Bearer realm="layersweep", Basic realm="layersweep", charset="UTF-8"'}
