"""The child that describes and builds: of one slot, or of all slots of a worker, one request after the other.

Builders of a GPU exclude one another anyway, and a process's first build takes several times as long as the next ones:
so the slots there share one. What happens to a request of one slot is no other's trouble: they wait, and the next
request starts the process anew where it has died.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from workers.engine.protocol import Answer, Progress, Verb
from workers.interruption import Interruption, InterruptionError
from workers.processes.child import Child

POLL_SECONDS = 0.1
"""How often who waits for another slot's request looks whether it is interrupted."""


class Builder:
    """Answers requests as a `Child` does, from any thread. The process is kept warm: second builds are faster."""

    def __init__(self, start: Callable[[], Child]) -> None:
        """`start`: starts the process; raises OSError where it cannot be."""
        self._start = start
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._is_trusted = True

    def request(
        self,
        verb: Verb[Answer],
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_seconds: float | None,
        silence_seconds: float | None = None,
        on_progress: Progress | None = None,
        interruption: Interruption | None = None,
        stops_for: type[InterruptionError] | None = None,
    ) -> Answer:
        """As of `Child`, after the requests of other slots; their time is told as a wait. Raises OSError, too."""
        with self._held(on_progress, interruption):
            return self._ready().request(
                verb,
                arguments,
                timeout_seconds=timeout_seconds,
                silence_seconds=silence_seconds,
                on_progress=on_progress,
                interruption=interruption,
                stops_for=stops_for,
            )

    def discard(self) -> None:
        """Start the process anew before the next request: after an error its device's state is not to be trusted."""
        self._is_trusted = False

    def kill(self) -> None:
        """End the process at once."""
        with self._lock:
            self._end()

    def _ready(self) -> Child:
        if self._child is None or not self._is_trusted or not self._child.alive():
            self._end()
            self._child = self._start()
        return self._child

    def _end(self) -> None:
        child, self._child, self._is_trusted = self._child, None, True
        if child is not None:
            child.kill()

    @contextmanager
    def _held(self, on_progress: Progress | None, interruption: Interruption | None) -> Generator[None]:
        """Have the process. Raises the interruption's cause."""
        if not self._lock.acquire(blocking=False):
            self._wait(on_progress or (lambda progress: None), interruption)
        try:
            yield
        finally:
            self._lock.release()

    def _wait(self, on_progress: Progress, interruption: Interruption | None) -> None:
        started_at = time.monotonic()
        on_progress({"waiting": True})
        while not self._lock.acquire(timeout=POLL_SECONDS):
            if interruption is not None:
                interruption.check()
        on_progress({"waited_seconds": time.monotonic() - started_at})
