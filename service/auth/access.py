"""Who may do what: from the token of a request to its caller.

Until the first token is made the service is *open*: everybody who reaches it may do everything, and it answers on this
machine's loopback addresses only. From the first token on, every request but for health and static files needs one.

A scope opens what its name says; `submit` holds `read`, and `admin` holds both. A token of one project reaches nothing
of another: what is there answers 404, as if it were not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from anyio import to_thread
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from service.auth import projects, tokens
from service.auth.rate_limits import Limits
from service.auth.tokens import Scope
from service.database import outages
from service.database.access_models import Token
from service.database.sessions import Database
from service.errors import ForbiddenError, UnauthorizedError

_log = logging.getLogger(__name__)

T = TypeVar("T")

REFUSALS = {
    "unknown": (
        "this token is not known here (of another service, revoked, or mistyped): see `layersweep token create`"
    ),
    "expired": "this token has expired: create a new one with `layersweep token create`",
    "revoked": "this token was revoked",
}
"""Why a token is refused, by the name under which the address of the login page says it."""

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

    def check_may_make_tokens_of(self, project: str | None) -> None:
        """Raise ForbiddenError if a token of this project (None: of all) would reach further than the caller's own."""
        if self.bound_to not in (None, project):
            raise ForbiddenError(f"a token of the project {self.bound_to!r} makes tokens of that project only")

    def check_reaches_all_projects(self) -> None:
        """Raise ForbiddenError if the caller's token belongs to one project: it makes and changes none."""
        if self.bound_to is not None:
            raise ForbiddenError(
                f"this token belongs to the project {self.bound_to!r}: projects take one of all projects"
            )


OPEN = Caller(ANONYMOUS, None, frozenset(tokens.SCOPES), None)
"""Everybody, while the service has no token."""

NOBODY = Caller(ANONYMOUS, None, frozenset(), None)
"""Who asks without a token for what needs none."""


@dataclass(frozen=True, slots=True)
class _CachedCaller:
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
    _known: dict[str, _CachedCaller] = field(default_factory=dict[str, _CachedCaller], init=False)
    _projects: set[str] = field(default_factory=lambda: {projects.DEFAULT}, init=False)
    _limiter: anyio.CapacityLimiter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(self.threads)

    async def is_open(self) -> bool:
        """True until the first token was made, seen within `CACHE_SECONDS`."""
        looked_at = time.monotonic()
        if self._is_open and looked_at - self._looked_at > CACHE_SECONDS:
            # Requests that come meanwhile look, too: nobody is let in by what was not read yet.
            if await self._read(tokens.any_exists):
                self._is_open = False
            self._looked_at = looked_at
        return self._is_open

    async def caller(self, secret: str, address: str) -> Caller:
        """The caller with this token, which came from an address.

        Raises UnauthorizedError with what is wrong with it, and TooManyRequestsError in its place if too many wrong
        ones came from there.
        """
        refusal = None if tokens.hash_of(secret) in self._known else self.limits.refusal_of(address)
        try:
            return await self._caller(secret)
        except UnauthorizedError as wrong:
            if refusal is not None:
                raise refusal from wrong
            self.limits.wrong_token(address)
            raise

    async def _caller(self, secret: str) -> Caller:
        digest = tokens.hash_of(secret)
        known = self._known.get(digest)
        if known is None or time.monotonic() - known.read_at > CACHE_SECONDS:
            token = await self._read(lambda session: tokens.find(session, secret))
            if token is None:
                raise UnauthorizedError(REFUSALS["unknown"])
            known = _known(token)
            if len(self._known) >= _CACHED_TOKENS:
                self._known.clear()
            self._known[digest] = known
            await to_thread.run_sync(self._mark_seen, token.id)
        if known.expires_at is not None and known.expires_at <= time.time():
            raise UnauthorizedError(REFUSALS["expired"])
        return known.caller

    async def check_project(self, name: str) -> None:
        """Raise NotFoundError unless there is such a project."""
        if name in self._projects:
            return
        await self._read(lambda session: projects.get(session, name))
        self._projects.add(name)

    def forget(self) -> None:
        """Read every token and project again: one was made, revoked or deleted."""
        self._known.clear()
        self._projects = {projects.DEFAULT}
        self._looked_at = float("-inf")

    def _mark_seen(self, token_id: str) -> None:
        """Keep when the token was used, if anything can be stored: reads go on without."""
        try:
            self.database.write(lambda session: tokens.mark_seen(session, token_id))
        except (DBAPIError, PoolTimeoutError) as error:
            outages.log(_log, "when a token was last used could not be stored", error)

    async def _read(self, fn: Callable[[Session], T]) -> T:
        return await to_thread.run_sync(self.database.read, fn, limiter=self._limiter)


def _known(token: Token) -> _CachedCaller:
    if token.revoked_at is not None:
        raise UnauthorizedError(REFUSALS["revoked"])
    given = frozenset(token.scopes)
    scopes = given.union(*(_HOLDS.get(scope, ()) for scope in given))
    return _CachedCaller(Caller(token.name, token.id, scopes, token.project), token.expires_at, time.monotonic())


def check_scopes(caller: Caller, needed: frozenset[Scope]) -> None:
    """Raise ForbiddenError unless the caller has one of the scopes."""
    if not needed & caller.scopes:
        words = " or ".join(sorted(needed))
        raise ForbiddenError(
            f"this needs a token with the scope {words}; this one has {', '.join(sorted(caller.scopes)) or 'none'}"
        )


def check_named(caller: Caller, named: str) -> None:
    """Raise ForbiddenError if a token of one project names another."""
    if caller.bound_to not in (None, named):
        raise ForbiddenError(f"this token belongs to the project {caller.bound_to!r}, not to {named!r}")
