"""Who may do what: from the token of a request to its caller, and what that caller reaches.

Until the first token is made the service is *open*: everybody who reaches it may do everything, and it answers on this
machine's loopback addresses only. From the first token on, every request but for health and static files needs one.

A scope opens what its name says; `submit` holds `read`, and `admin` holds both. A token of one project reaches nothing
of another: what is there answers 404, as if it were not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast

import anyio
import sqlalchemy as sa
from anyio import to_thread
from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from service import projects, tokens
from service.db import Database
from service.errors import Forbidden, NotFound, Unauthorized
from service.limits import Limits
from service.models import Dataset, Sweep, Token, Trial, Webhook, Worker
from service.services import GivenServices
from service.tokens import Scope

T = TypeVar("T")

CACHE_SECONDS = 2.0
"""How long a process goes by what it read of a token: a token that another process revoked opens for that long."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROJECT_HEADER = "Layersweep-Project"
ANONYMOUS = "anonymous"

_HOLDS: Mapping[str, tuple[Scope, ...]] = {"submit": ("read",), "admin": ("read", "submit")}
_CACHED_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request."""

    name: str
    token_id: str | None
    scopes: frozenset[str]
    bound_to: str | None
    """The project of its token: it reaches nothing else. None: it reaches all projects."""
    named: str | None = None
    """The project that the request names."""

    @property
    def project(self) -> str:
        """Where what it makes belongs, and where names are looked up."""
        return self.bound_to or self.named or projects.DEFAULT

    @property
    def lists(self) -> str | None:
        """The project whose things it is shown in lists; None: those of all."""
        return self.bound_to or self.named


OPEN = Caller(ANONYMOUS, None, frozenset(tokens.SCOPES), None)
"""Everybody, while the service has no token."""

NOBODY = Caller(ANONYMOUS, None, frozenset(), None)
"""Who asks without a token for what needs none."""


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    expires_at: float | None
    read_at: float


@dataclass
class Access:
    """Finds the callers of one process's requests. Whoever asks it with a wrong token is counted."""

    database: Database
    threads: int
    limits: Limits
    _is_open: bool = field(default=True, init=False)
    _looked_at: float = field(default=float("-inf"), init=False)
    _known: dict[str, _Known] = field(default_factory=dict[str, _Known], init=False)
    _projects: set[str] = field(default_factory=lambda: {projects.DEFAULT}, init=False)
    _limiter: anyio.CapacityLimiter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(self.threads)

    async def is_open(self) -> bool:
        """True until the first token was made, seen within `CACHE_SECONDS`."""
        if self._is_open and time.monotonic() - self._looked_at > CACHE_SECONDS:
            self._looked_at = time.monotonic()
            self._is_open = not await self._read(tokens.any_exists)
        return self._is_open

    async def caller(self, secret: str, address: str) -> Caller:
        """The caller with this token, which came from an address.

        Raises Unauthorized with what is wrong with it, and TooManyRequests where too many wrong ones came from there:
        then it is not even looked at.
        """
        if tokens.hash_of(secret) not in self._known:
            self.limits.check_address(address)
        try:
            return await self._caller(secret)
        except Unauthorized:
            self.limits.wrong_token(address)
            raise

    async def _caller(self, secret: str) -> Caller:
        digest = tokens.hash_of(secret)
        known = self._known.get(digest)
        if known is None or time.monotonic() - known.read_at > CACHE_SECONDS:
            token = await self._read(lambda session: tokens.find(session, secret))
            if token is None:
                raise Unauthorized("this token is not known here: see `layersweep token create`")
            known = _known(token)
            if len(self._known) >= _CACHED_TOKENS:
                self._known.clear()
            self._known[digest] = known
            await to_thread.run_sync(self.database.write, lambda session: tokens.mark_seen(session, token.id))
        if known.expires_at is not None and known.expires_at <= time.time():
            raise Unauthorized("this token has expired: make a new one with `layersweep token create`")
        return known.caller

    async def check_project(self, name: str) -> None:
        """Raise NotFound unless there is such a project."""
        if name in self._projects:
            return
        await self._read(lambda session: projects.get(session, name))
        self._projects.add(name)

    def forget(self) -> None:
        """Read every token and project again: one was made, revoked or deleted."""
        self._known.clear()
        self._projects = {projects.DEFAULT}
        self._looked_at = float("-inf")

    async def _read(self, fn: Callable[[Session], T]) -> T:
        return await to_thread.run_sync(self.database.read, fn, limiter=self._limiter)


def _known(token: Token) -> _Known:
    if token.revoked_at is not None:
        raise Unauthorized("this token was revoked")
    given = frozenset(cast("list[str]", token.scopes))
    scopes = given.union(*(_HOLDS.get(scope, ()) for scope in given))
    return _Known(Caller(token.name, token.id, scopes, token.project), token.expires_at, time.monotonic())


# --- in routes --------------------------------------------------------------------------------------------------------

_NamedProject = Annotated[
    str | None,
    Header(
        alias=PROJECT_HEADER,
        max_length=64,
        description="the project to work in; needed only with a token of all projects, for another than `default`",
    ),
]


def get_caller(request: Request) -> Caller:
    """Who makes this request."""
    return request.state.caller


def at_end(request: Request, do: Callable[..., object], *arguments: Any) -> None:
    """Call this once the request is answered, or has failed."""
    stack: ExitStack = request.state.at_end
    stack.callback(do, *arguments)


async def _given(request: Request) -> Caller:
    # Asynchronous, as what is not is sent to a thread.
    return get_caller(request)


GivenCaller = Annotated[Caller, Depends(_given)]
"""The type of a route's parameter that takes the caller."""

_OWNED: Mapping[str, tuple[str, Any]] = {
    "sweep": ("sweep", Sweep),
    "sweep_id": ("sweep", Sweep),
    "trial": ("trial", Trial),
    "dataset": ("dataset", Dataset),
    "webhook": ("webhook", Webhook),
    "worker": ("worker", Worker),
}
"""Parameter of a path -> what it is the id of, and the table that says whose that is."""

_NOT_OWNED = frozenset({"attempt", "number", "name", "path", "project", "token"})
"""Parts of what another parameter names, names of what everybody may see, and what its routes hold apart themselves."""


async def within_project(request: Request, services: GivenServices, named_project: _NamedProject = None) -> None:
    """A dependency of every router: what a path names must be in the caller's project, or it answers 404.

    A parameter of which nobody has said whose it is answers 404 to every token of one project.
    """
    caller = get_caller(request)
    if caller.named is not None:
        await services.access.check_project(caller.named)
    bound_to = caller.bound_to
    if bound_to is None:
        return
    for parameter, value in request.path_params.items():
        if parameter in _NOT_OWNED:
            continue
        if parameter not in _OWNED:
            raise NotFound(f"{parameter} {value} belongs to no project that this token reaches")
        noun, table = _OWNED[parameter]
        query = sa.select(table.project).where(table.id == value)
        owner = await services.read(lambda session, query=query: session.scalar(query))
        if owner not in (None, bound_to) and not await _is_shared(services, table, value):
            raise NotFound(f"there is no {noun} {value}")


async def _is_shared(services: GivenServices, table: Any, row_id: str) -> bool:
    if table is not Dataset:
        return False
    query = sa.select(Dataset.builtin).where(Dataset.id == row_id)
    return bool(await services.read(lambda session: session.scalar(query)))


def check_scopes(caller: Caller, needed: frozenset[Scope]) -> None:
    """Raise Forbidden unless the caller has one of the scopes."""
    if not needed & caller.scopes:
        words = " or ".join(sorted(needed))
        raise Forbidden(
            f"this needs a token with the scope {words}; this one has {', '.join(sorted(caller.scopes)) or 'none'}"
        )


def check_named(caller: Caller, named: str) -> None:
    """Raise Forbidden where a token of one project names another."""
    if caller.bound_to not in (None, named):
        raise Forbidden(f"this token belongs to the project {caller.bound_to!r}, not to {named!r}")
