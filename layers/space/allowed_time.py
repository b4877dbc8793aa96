"""The time that a calculation over many points may take: it ends with as many as it has."""

from __future__ import annotations

import time

CLOCK_TIMES = 3
"""By the clock it may take so many times its seconds: others use the processors, too."""


class AllowedTime:
    """From now on so many seconds of this thread's CPU time, and by the clock CLOCK_TIMES as many."""

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, 1e-9)
        self._thread_began = time.thread_time()
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.share_used() > 1

    def share_used(self) -> float:
        """How much of it is over."""
        by_clock = (time.monotonic() - self._began) / CLOCK_TIMES
        return max(time.thread_time() - self._thread_began, by_clock) / self._seconds
