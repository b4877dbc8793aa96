"""Workers that wait for a trial, in the order in which they came: one look at the database for all who are alike.

Were each to look for itself, a trial that is queued while a hundred wait would cost a hundred looks, and as many claims
of which one is given something.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from service.common.notifications import QUEUE, WORKERS, Notifications
from service.database.sessions import AsyncRead
from service.leases import claimants
from service.leases.claimants import Claimant
from service.leases.claiming import room

NEVER = -1
"""The version of the queue at which a worker has claimed that has not claimed yet."""

_MISS_SECONDS = 5.0
"""How long a finish that found nothing to claim stands for the claim that comes after it."""
_MOST_MISSES = 10_000


@dataclass(eq=False, slots=True)
class _Waiter:
    at_most: int
    claimed_at: int
    """The version of the queue when it last claimed, and was given nothing."""
    released: asyncio.Future[bool]


@dataclass(eq=False, slots=True)
class _Line:
    """Those who wait and may be given the same trials."""

    topic: str
    """Published when somebody comes who has not seen the newest version of the queue."""
    loop: asyncio.AbstractEventLoop
    waiters: list[_Waiter] = field(default_factory=list["_Waiter"])
    task: asyncio.Task[None] | None = None

    def answer(self, waiter: _Waiter, released: bool) -> None:
        self.waiters.remove(waiter)
        if not waiter.released.done():
            waiter.released.set_result(released)


class ClaimLines:
    """The lines of a process. Everything happens on one event loop: there is no lock."""

    def __init__(self, notifications: Notifications, read: AsyncRead, recheck_seconds: float) -> None:
        """`recheck_seconds`: how often a line looks for what other processes have queued."""
        self._notifications = notifications
        self._read = read
        self._recheck_seconds = recheck_seconds
        self._lines: dict[Hashable, _Line] = {}
        self._numbers = itertools.count()
        self._misses: dict[str, float] = {}
        """Worker -> when (monotonic clock) it finished a trial and was given no other."""

    @property
    def queue_version(self) -> int:
        """Grows whenever there may be something new to claim."""
        return self._notifications.version(QUEUE)

    @property
    def are_closing(self) -> bool:
        """Whether the service stops: nobody waits any more."""
        return self._notifications.is_stopping

    async def wait(self, worker_id: str, at_most: int, seconds: float, claimed_at: int) -> bool:
        """Wait for the worker's turn and `at_most` trials; False if there was none within so many seconds.

        `claimed_at`: the version of the queue before the worker last claimed, or NEVER. Who is released and does not
        take what there is says so (`pass_on`).
        """
        claimant = claimants.known(worker_id) or await self._read(lambda session: _claimant(session, worker_id))
        if claimant is None:
            # It has gone: its claim is refused.
            return True
        line = self._line(claimant)
        waiter = _Waiter(at_most, claimed_at, line.loop.create_future())
        line.waiters.append(waiter)
        if line.task is None or line.task.done():
            line.task = line.loop.create_task(self._serve(claimant, line), name="claim line")
        elif claimed_at < self.queue_version:
            self._notifications.publish(line.topic)
        try:
            await asyncio.wait([waiter.released], timeout=seconds)
            return waiter.released.done() and waiter.released.result()
        except asyncio.CancelledError:
            if waiter.released.done():
                self.pass_on()
            raise
        finally:
            if waiter in line.waiters:
                line.waiters.remove(waiter)

    def note_miss(self, worker_id: str) -> None:
        """The worker has just finished a trial, and nothing was there for it to claim."""
        if len(self._misses) >= _MOST_MISSES:
            self._misses.clear()
        self._misses[worker_id] = time.monotonic()

    def take_miss(self, worker_id: str) -> bool:
        """Whether the worker's finish found nothing to claim a moment ago, so that its claim may wait at once.

        True once for each such finish.
        """
        noted = self._misses.pop(worker_id, -math.inf)
        return time.monotonic() < noted + _MISS_SECONDS

    def pass_on(self) -> None:
        """Say that somebody who was released was given nothing, or has left: what there is may be another's."""
        self._notifications.publish([line.topic for line in self._lines.values() if line.waiters])

    def _line(self, claimant: Claimant) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(claimant)
        if line is None or line.loop is not loop:
            line = self._lines[claimant] = _Line(f"claims:{next(self._numbers)}", loop)
        return line

    async def _serve(self, claimant: Claimant, line: _Line) -> None:
        """Release those who wait, the oldest first, as far as there are trials, until nobody waits."""
        try:
            is_woken = True
            while line.waiters and not self._notifications.is_stopping:
                topics = (QUEUE, line.topic)
                version, since = self.queue_version, self._notifications.version(topics)
                await self._release(claimant, line, None if not is_woken else version)
                if line.waiters:
                    is_woken = await self._notifications.wait(topics, self._recheck_seconds, since=since)
        except Exception as error:  # noqa: BLE001 - raised by all who wait
            for waiter in line.waiters:
                if not waiter.released.done():
                    waiter.released.set_exception(error)
            line.waiters.clear()
        finally:
            for waiter in list(line.waiters):
                line.answer(waiter, released=False)
            if self._lines.get(claimant) is line:
                del self._lines[claimant]

    async def _release(self, claimant: Claimant, line: _Line, version: int | None) -> None:
        """`version`: of the queue; who has claimed at it is left out. None: nobody is, as time has gone by."""

        def may_claim(waiter: _Waiter) -> bool:
            return version is None or waiter.claimed_at < version

        wanted = sum(waiter.at_most for waiter in line.waiters if may_claim(waiter))
        if not wanted:
            return
        found = await self._read(lambda session: room.count_claimable(session.connection(), claimant, wanted))
        for waiter in [waiter for waiter in line.waiters if may_claim(waiter)]:
            if found <= 0:
                break
            found -= waiter.at_most
            line.answer(waiter, released=True)
        if line.waiters:
            self._notifications.publish(WORKERS)


def _claimant(session: Session, worker_id: str) -> Claimant | None:
    return claimants.find(session.connection(), worker_id)
