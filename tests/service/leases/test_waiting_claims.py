"""A claim that waits: when it looks at the database, and when it gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

from sqlalchemy.orm import Session

from service.common.notifications import Notifications
from service.database.sessions import AsyncRead
from service.leases import claimants, queue
from service.leases.claiming.line import NEVER, ClaimLines
from service.leases.claiming.waiting import MOST_LATE_CLAIMS, Claimer, WaitingClaim
from service.leases.schemas import Lease
from tests.service.rows import Rows

T = TypeVar("T")
SECONDS = 30
"""Longer than a test: what is found is found by news, and not by a clock."""


class RecordedLines(ClaimLines):
    """Lines that remember from which version of the queue on a claim waited."""

    def __init__(self, notifications: Notifications, read: AsyncRead) -> None:
        super().__init__(notifications, read, SECONDS)
        self.waited_from: list[int] = []
        self.waits = asyncio.Event()

    async def wait(self, worker_id: str, at_most: int, seconds: float, claimed_at: int) -> bool:
        self.waited_from.append(claimed_at)
        if claimed_at != NEVER:
            self.waits.set()
        return await super().wait(worker_id, at_most, seconds, claimed_at)


class Claims:
    """Claims of one worker that wait, and how often they looked at the database."""

    def __init__(self, rows: Rows, *, late: int = 0) -> None:
        """`late`: so many of the claims are given nothing, as if another process had been quicker."""
        self.database = rows.database
        self.worker = rows.worker()
        self.lines = RecordedLines(rows.database.notifications, self._read)
        self.late = late
        self.looks = 0
        # A known worker enters the line in the order of the claims.
        self.database.read(lambda session: claimants.find(session.connection(), self.worker))

    def start(self, *, seconds: float = SECONDS, is_gone: bool = False) -> asyncio.Task[Lease | None]:
        async def has_gone() -> bool:
            return is_gone

        claimer = Claimer(self.worker, 1, time.monotonic() + seconds)
        waiting = WaitingClaim(self.lines, claimer, self._claim, has_gone, may_come_late=self.late > 0)
        return asyncio.create_task(waiting.result())

    async def _claim(self) -> Lease | None:
        self.looks += 1
        if self.looks <= self.late:
            return None
        return await asyncio.to_thread(self.database.write, lambda session: queue.claim(session, self.worker, SECONDS))

    async def _read(self, fn: Callable[[Session], T]) -> T:
        return await asyncio.to_thread(self.database.read, fn)


def _run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(story, SECONDS))


def test_a_claim_without_time_to_wait_looks_once(rows: Rows) -> None:
    rows.sweep(0)
    claims = Claims(rows)

    async def story() -> None:
        assert await claims.start(seconds=0) is None

    _run(story())
    assert claims.looks == 1


def test_a_claim_after_a_finish_that_found_nothing_waits_before_it_looks(rows: Rows) -> None:
    sweep = rows.sweep(0)
    claims = Claims(rows)
    claims.lines.note_miss(claims.worker)

    async def story() -> None:
        waiting = claims.start()
        rows.queue(sweep, 1)
        assert await waiting is not None

    _run(story())
    assert (claims.lines.waited_from, claims.looks) == ([NEVER], 1)


def test_a_claim_that_comes_too_late_is_made_again_at_once(rows: Rows) -> None:
    rows.sweep(1)
    claims = Claims(rows, late=MOST_LATE_CLAIMS - 1)

    async def story() -> None:
        assert await claims.start() is not None

    _run(story())
    assert claims.lines.waited_from == [NEVER] * (MOST_LATE_CLAIMS - 1)


def test_a_claim_that_came_too_late_too_often_waits_for_news(rows: Rows) -> None:
    sweep = rows.sweep(1)
    claims = Claims(rows, late=MOST_LATE_CLAIMS)

    async def story() -> None:
        version = claims.lines.queue_version
        waiting = claims.start()
        await claims.lines.waits.wait()
        assert claims.lines.waited_from == [NEVER] * (MOST_LATE_CLAIMS - 1) + [version]
        rows.queue(sweep, 1)
        assert await waiting is not None

    _run(story())


def test_a_claim_whose_worker_is_gone_leaves_the_trial_to_the_next(rows: Rows) -> None:
    rows.sweep(1)
    claims = Claims(rows)

    async def story() -> None:
        waiting: list[asyncio.Task[Lease | None]] = []
        for is_gone in (True, False):
            claims.lines.note_miss(claims.worker)
            waiting.append(claims.start(is_gone=is_gone))
            await asyncio.sleep(0)
        gone, following = await asyncio.gather(*waiting)
        assert gone is None
        assert following is not None

    _run(story())
    assert claims.looks == 1
