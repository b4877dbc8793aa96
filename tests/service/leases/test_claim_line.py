"""The line of workers that wait for a trial: one look for all of them, and the oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from sqlalchemy.orm import Session

from service.common.notifications import QUEUE
from service.leases import queue
from service.leases.claiming.line import NEVER, ClaimLines
from tests.service.rows import Rows

T = TypeVar("T")
SECONDS = 30
"""Longer than a test: what is found is found by news, and not by a clock."""


class Line:
    """One worker's claims in a line, and how often the database is looked at."""

    def __init__(self, rows: Rows) -> None:
        self.database = rows.database
        self.notifications = rows.database.notifications
        self.worker = rows.worker()
        self.looks = 0
        self.lines = ClaimLines(self.notifications, self._read, SECONDS)
        # The worker is read once.
        self.claim()

    @property
    def version(self) -> int:
        return self.notifications.version(QUEUE)

    def claim(self) -> bool:
        return self.database.write(lambda session: queue.claim(session, self.worker, SECONDS)) is not None

    async def wait(self, claimed_at: int, number: int = 1) -> list[asyncio.Task[bool]]:
        """So many that wait, in the order of the line."""
        waiting = [asyncio.create_task(self.lines.wait(self.worker, 1, SECONDS, claimed_at)) for _ in range(number)]
        await asyncio.sleep(0)
        return waiting

    async def _read(self, fn: Callable[[Session], T]) -> T:
        self.looks += 1
        return await asyncio.to_thread(self.database.read, fn)


def _run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(story, SECONDS))


async def _let_go(waiting: list[asyncio.Task[bool]]) -> None:
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_what_is_queued_goes_to_those_who_came_first_after_one_look(rows: Rows) -> None:
    line, sweep = Line(rows), rows.sweep(0)

    async def story() -> None:
        first, second, *others = waiting = await line.wait(line.version, 8)
        assert line.looks == 0
        rows.queue(sweep, 2)
        assert await asyncio.gather(first, second) == [True, True]
        assert (line.looks, [each.done() for each in others]) == (1, [False] * 6)
        await _let_go(waiting)

    _run(story())


def test_who_was_released_and_leaves_lets_the_next_one_in(rows: Rows) -> None:
    line, sweep = Line(rows), rows.sweep(0)

    async def story() -> None:
        (first, second) = await line.wait(line.version, 2)
        rows.queue(sweep, 1)
        assert await first
        line.lines.pass_on()
        assert await second

    _run(story())


def test_who_claimed_before_the_news_is_released_at_once_and_who_claimed_after_it_waits(rows: Rows) -> None:
    line, sweep = Line(rows), rows.sweep(1)

    async def story() -> None:
        (knows,) = await line.wait(line.version)
        (never,) = await line.wait(NEVER)
        assert await never
        assert not knows.done()
        assert line.claim()
        rows.queue(sweep, 1)
        assert await knows

    _run(story())


def test_who_waits_is_told_that_the_database_is_away(rows: Rows) -> None:
    line = Line(rows)

    async def lost(fn: Callable[[Session], T]) -> T:
        raise ConnectionError("away")

    line.lines = ClaimLines(line.notifications, lost, SECONDS)

    async def story() -> None:
        waiting = await line.wait(NEVER, 3)
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionError] * 3

    _run(story())


def test_who_waits_is_let_go_when_the_service_stops(rows: Rows) -> None:
    line = Line(rows)

    async def story() -> None:
        waiting = await line.wait(line.version, 2)
        line.notifications.stop()
        assert await asyncio.gather(*waiting) == [False, False]

    _run(story())
