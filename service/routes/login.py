"""Logging in to the page with a token, which the browser keeps in a cookie that no script can read."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from service.auth.access import REFUSALS, check_scopes
from service.auth.scopes import ScopedRoute, needs_no_token
from service.auth.tokens import Scope
from service.errors import ForbiddenError, TooManyRequestsError, UnauthorizedError
from service.http.dependencies import ServicesDep
from service.http.middleware import COOKIE, LOGIN_PATH, address_of
from service.web.rendering import render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=ScopedRoute)

COOKIE_SECONDS = 12 * 3600
_OPENS_PAGES: frozenset[Scope] = frozenset({"read"})


@router.get(LOGIN_PATH)
@needs_no_token
def show_login(next: str = "/", refused: str = "") -> Response:  # noqa: A002 - the name of the query's parameter
    return render("login.html", next=_own_path(next), error=REFUSALS.get(refused, ""))


@router.post(LOGIN_PATH)
@needs_no_token
async def log_in(
    request: Request,
    services: ServicesDep,
    token: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    try:
        caller = await services.access.caller(token.strip(), address_of(request.scope))
        check_scopes(caller, _OPENS_PAGES)
    except (ForbiddenError, UnauthorizedError, TooManyRequestsError) as error:
        answer = render("login.html", status=error.status, next=_own_path(next), error=error.detail)
        if error.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(error.retry_after_seconds)
        return answer
    response = RedirectResponse(_own_path(next), 303)
    response.set_cookie(
        COOKIE,
        token.strip(),
        max_age=COOKIE_SECONDS,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


@router.post("/logout")
@needs_no_token
async def log_out() -> Response:
    response = RedirectResponse(LOGIN_PATH, 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return response


def _own_path(path: str) -> str:
    """The path of this service that `path` is; "/" for what leads elsewhere."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return path if is_own and path.isprintable() else "/"
