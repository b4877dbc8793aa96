"""What a route works with: the settings, the database, the notifications and the scheduler of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import anyio
from anyio import to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from service.auth.access import Access
from service.common.notifications import Notifications
from service.database.group_commit import ForAll, Needs
from service.database.sessions import Database
from service.http.shared_reads import SharedReads
from service.leases.claiming.line import ClaimLines
from service.results.columns import ColumnStore
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.sweeps.validation import Validation

T = TypeVar("T")
Q = TypeVar("Q")


@dataclass
class Services:
    """Plain `def` routes use `database`; `async` ones use `read`, `write` and `submit`, which keep the loop free."""

    settings: Settings
    database: Database
    notifications: Notifications
    scheduler: Scheduler
    access: Access
    validation: Validation
    columns: ColumnStore = field(default_factory=ColumnStore)
    shared_reads: SharedReads = field(default_factory=SharedReads)
    in_flight: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Projects and Idempotency-Keys of the requests that this process works on."""
    claim_lines: ClaimLines = field(init=False)
    _limiter: anyio.CapacityLimiter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(self.settings.threads)
        self.claim_lines = ClaimLines(self.notifications, self.read, self.settings.recheck_seconds)

    async def read(self, fn: Callable[[Session], T]) -> T:
        """`Database.read` in a thread."""
        return await to_thread.run_sync(self.database.read, fn, limiter=self._limiter)

    async def write(self, fn: Callable[[Session], T]) -> T:
        """`Database.write` in a thread."""
        return await to_thread.run_sync(self.database.write, fn, limiter=self._limiter)

    async def submit(self, fn: Callable[[Session], T], *, needs: Needs | None = None) -> T:
        """`Database.submit`, which needs no thread for each caller that waits."""
        return await asyncio.wrap_future(self.database.submit(fn, needs=needs))

    async def submit_request(self, fn: ForAll[Q, T], request: Q, *, needs: Needs | None = None) -> T:
        """`Database.submit_request`."""
        return await asyncio.wrap_future(self.database.submit_request(fn, request, needs=needs))


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that answers."""
    return connection.app.state.services


async def get_services(connection: HTTPConnection) -> Services:
    """`services_of` as a dependency. What every request depends on calls that: each dependency has its price."""
    return services_of(connection)


ServicesDep = Annotated[Services, Depends(get_services)]
"""The type of a route's parameter that takes the services."""


def at_end(request: Request, do: Callable[..., object], *arguments: Any) -> None:
    """Call this once the request is answered, or has failed."""
    stack: ExitStack = request.state.at_end
    stack.callback(do, *arguments)
