"""Reads that many wait for at once: one for all who were woken by the same news."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SharedReads:
    """Reads that are under way, by what is read. Everything happens on one event loop: there is no lock.

    A read that has ended is shared with nobody: whoever comes later looks for itself.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[Any]] = {}

    async def read(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What the running read of this key returns or raises, or else what `read()` does.

        The key must hold the version of the news that the caller was woken by: an older read may have missed it.
        """
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(read())
            running.add_done_callback(lambda _: self._running.pop(key))
        # One who gives up must not end it for the others.
        return await asyncio.shield(running)
