"""Wake-ups inside one process: who waits for a topic learns at once that something was committed.

Topics are `queue` (a trial may be claimable), `workers` (one waits for a trial), `sweep:<id>` (an event was appended),
`scheduler` (it has work) and `webhooks` (there is a delivery to send).
A notification carries nothing: whoever wakes looks at the database. Other processes are not told: who waits for a sweep
learns of their changes by `service.http.long_polling`, and a claim looks again by itself (`Settings.recheck_seconds`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

QUEUE = "queue"
WORKERS = "workers"
SCHEDULER = "scheduler"
WEBHOOKS = "webhooks"

SWEEP_PREFIX = "sweep:"

_KEPT_TOPICS = 10_000


def sweep_topic(sweep_id: str) -> str:
    """The topic of one sweep's events."""
    return SWEEP_PREFIX + sweep_id


class Notifications:
    """Topics with versions. All methods may be called from any thread; `wait` from any event loop.

    No wake-up is lost when the version is taken before the database is read:

        since = notifications.version(topics)
        ...read, find nothing...
        await notifications.wait(topics, timeout_seconds, since=since)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counter = 0
        self._floor = 0
        self._versions: dict[str, int] = {}
        self._wakers: dict[str, set[Callable[[], None]]] = {}
        self._is_stopping = False

    def version(self, topics: str | Iterable[str]) -> int:
        """Return a number that grows whenever one of `topics` is published."""
        with self._lock:
            return self._version(_as_tuple(topics))

    def publish(self, topics: str | Iterable[str]) -> None:
        """Wake everyone who waits for one of `topics`."""
        wakers: set[Callable[[], None]] = set()
        with self._lock:
            for topic in _as_tuple(topics):
                self._counter += 1
                self._versions.pop(topic, None)
                self._versions[topic] = self._counter
                wakers |= self._wakers.get(topic, set())
            self._forget()
        for wake in wakers:
            wake()

    @property
    def is_stopping(self) -> bool:
        """Whether the process is about to end: callers of the API are answered now, with what there is."""
        return self._is_stopping

    def stop(self) -> None:
        """Say that the process is about to end, and wake everyone."""
        self._is_stopping = True
        with self._lock:
            self._counter += 1
            self._floor = self._counter
            self._versions.clear()
            wakers = {wake for waiting in self._wakers.values() for wake in waiting}
        for wake in wakers:
            wake()

    def waited(self) -> set[str]:
        """The topics that somebody waits for now."""
        with self._lock:
            return set(self._wakers)

    async def wait(self, topics: str | Iterable[str], timeout_seconds: float, *, since: int | None = None) -> bool:
        """Wait until one of `topics` is published after version `since` (left out: now). False: the time ran out."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def wake() -> None:
            # A loop that has closed has nobody left to wake.
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        names = _as_tuple(topics)
        if self._register(names, wake, since):
            return True
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._unregister(names, wake)
        return True

    def wait_blocking(self, topics: str | Iterable[str], timeout_seconds: float, *, since: int | None = None) -> bool:
        """The same for a thread."""
        event = threading.Event()
        names = _as_tuple(topics)
        if self._register(names, event.set, since):
            return True
        try:
            return event.wait(timeout_seconds)
        finally:
            self._unregister(names, event.set)

    def _register(self, topics: tuple[str, ...], wake: Callable[[], None], since: int | None) -> bool:
        with self._lock:
            if since is not None and self._version(topics) > since:
                return True
            for topic in topics:
                self._wakers.setdefault(topic, set()).add(wake)
            return False

    def _unregister(self, topics: tuple[str, ...], wake: Callable[[], None]) -> None:
        with self._lock:
            for topic in topics:
                wakers = self._wakers.get(topic, set())
                wakers.discard(wake)
                if not wakers:
                    self._wakers.pop(topic, None)

    def _version(self, topics: tuple[str, ...]) -> int:
        return max((self._versions.get(topic, self._floor) for topic in topics), default=self._floor)

    def _forget(self) -> None:
        # A forgotten topic answers with the floor: at worst somebody wakes once for nothing.
        while len(self._versions) > _KEPT_TOPICS:
            self._floor = self._versions.pop(next(iter(self._versions)))


def _as_tuple(topics: str | Iterable[str]) -> tuple[str, ...]:
    return (topics,) if isinstance(topics, str) else tuple(topics)
