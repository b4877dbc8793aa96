"""The scopes that open a route: declared at the route, checked before its body is read.

A route without a declaration cannot be made, and an application that has one of another class refuses to start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from service.auth import access
from service.auth.tokens import Scope

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_DECLARATION = "__opened_by__"


class UndeclaredScopeError(RuntimeError):
    """A route does not say which scopes open it."""


def needs_scope(scope: Scope, *others: Scope) -> Callable[[Endpoint], Endpoint]:
    """Declare that a token with one of these scopes opens the route. It stands right above the function."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARATION, frozenset({scope, *others}))
        return endpoint

    return declare


def needs_no_token(endpoint: Endpoint) -> Endpoint:
    """Declare that everybody may open the route: health, files of the page, logging in."""
    setattr(endpoint, _DECLARATION, frozenset[Scope]())
    return endpoint


class ScopedRoute(APIRoute):
    """A route that only callers with a scope of its declaration reach."""

    opened_by: frozenset[Scope]
    """One of these; none: everybody."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        declared: frozenset[Scope] | None = getattr(endpoint, _DECLARATION, None)
        if declared is None:
            raise UndeclaredScopeError(f"{path}: declare with @needs_scope or @needs_no_token who may call it")
        self.opened_by = declared
        super().__init__(path, endpoint, **options)

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        if self.opened_by:
            access.check_scopes(scope["state"]["caller"], self.opened_by)
        await super().handle(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Declaration:
    """Who may call the routes of one path with some methods."""

    path: str
    """With the names of its parameters: `/v1/sweeps/{sweep}`."""
    methods: frozenset[str]
    opened_by: frozenset[Scope]
    pattern: re.Pattern[str]
    """What such a path matches."""


def declarations(app: FastAPI) -> Iterator[Declaration]:
    """What every route of `app` declares. Raises UndeclaredScopeError for one that cannot."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, ScopedRoute):
            raise UndeclaredScopeError(f"{context.path}: give its router `route_class=ScopedRoute`")
        yield Declaration(
            context.path_format or "", frozenset(context.methods or ()), route.opened_by, context.path_regex
        )
