"""What the routes of all pages share: errors that are pages, and fragments of pages."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse

from service.auth.access import OPEN
from service.auth.scopes import ScopedRoute
from service.errors import ServiceError, UnprocessableError
from service.http.callers import get_caller
from service.web.rendering import VISITOR, Visitor, render


class PageRoute(ScopedRoute):
    """A route whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_pages(request: Request) -> Response:
            VISITOR.set(_visitor(request))
            try:
                return await handle(request)
            except ServiceError as error:
                return problem_page(error)
            except RequestValidationError as error:
                places = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
                return problem_page(UnprocessableError(places))

        return handle_with_pages


def _visitor(request: Request) -> Visitor | None:
    caller = get_caller(request)
    return None if caller.token_id is None else Visitor(caller.name, caller.bound_to, sorted(caller.scopes))


def problem_page(error: ServiceError) -> HTMLResponse:
    """The page that an error is."""
    return render("problem.html", status=error.status, error=error)


@dataclass(frozen=True, slots=True)
class WayIn:
    """What a command needs to reach this service."""

    address: str
    """As the browser has it, quoted for a shell."""
    needs_token: bool

    @classmethod
    def of(cls, request: Request) -> WayIn:
        address = f"{request.scope['scheme']}://{request.headers.get('host', 'this-machine')}"
        return cls(shlex.quote(address), needs_token=get_caller(request) is not OPEN)


def page_router() -> APIRouter:
    """A router of pages: they are not in the API's description."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def wanted_part(request: Request) -> str | None:
    """The id of the part of the page that htmx will put the answer into; None where the whole page is wanted."""
    if request.headers.get("hx-request") != "true" or request.headers.get("hx-history-restore-request") == "true":
        return None
    return request.headers.get("hx-target", "").partition("#")[2] or None
