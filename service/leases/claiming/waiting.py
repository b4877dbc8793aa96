"""A claim that waits for a trial: when it looks, when it waits in line, and when it gives up."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.leases.claiming.line import NEVER, ClaimLines

T = TypeVar("T")

MOST_LATE_CLAIMS = 3
"""How often a claim that comes too late is made again before it waits for something new."""


@dataclass(frozen=True, slots=True)
class Claimer:
    """A worker that claims, and how long it waits."""

    worker: str
    at_most: int
    """Leases that it wants at once."""
    deadline: float
    """When it stops waiting (monotonic clock)."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


class WaitingClaim(Generic[T]):
    """One claim of a worker, made again whenever there may be something for it until it is given a `T`.

    A claim may come too late: another process has taken what this one saw. As there may be more, in another sweep, it
    goes back into the line as if it had never claimed, up to `MOST_LATE_CLAIMS` times, and only then waits for news.
    """

    def __init__(
        self,
        lines: ClaimLines,
        claimer: Claimer,
        claim: Callable[[], Awaitable[T | None]],
        is_gone: Callable[[], Awaitable[bool]],
        *,
        may_come_late: bool,
    ) -> None:
        """`claim` gives None if there is nothing; `is_gone`: nobody would execute what is claimed now.

        `may_come_late`: other processes claim at the same time. On SQLite, with one writer, none does.
        """
        self._lines = lines
        self._claimer = claimer
        self._claim = claim
        self._is_gone = is_gone
        self._claims_in_a_row = MOST_LATE_CLAIMS if may_come_late else 1
        self._claims_left = self._claims_in_a_row
        self._claimed_at = NEVER

    async def result(self) -> T | None:
        """What the claim is given; None at the deadline, if the claimer is gone, and when the service stops."""
        # A worker that waits and whose finish has just found nothing need not look again.
        looks_first = not self._lines.take_miss(self._claimer.worker) or self._claimer.seconds_left <= 0
        if looks_first and (given := await self._claim_once()) is not None:
            return given
        while await self._is_released():
            if (given := await self._claim_once()) is not None:
                return given
            self._lines.pass_on()
        return None

    async def _claim_once(self) -> T | None:
        version = self._lines.queue_version
        given = await self._claim()
        self._claims_left -= 1
        self._claimed_at = NEVER if self._claims_left else version
        return given

    async def _is_released(self) -> bool:
        """Wait for the claimer's turn; False if it is to wait no longer."""
        claimer, seconds = self._claimer, self._claimer.seconds_left
        if seconds <= 0 or self._lines.are_closing:
            return False
        if not await self._lines.wait(claimer.worker, claimer.at_most, seconds, self._claimed_at):
            return False
        if await self._is_gone():
            self._lines.pass_on()
            return False
        self._claims_left = self._claims_left or self._claims_in_a_row
        return True
