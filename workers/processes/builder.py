"""The children that describe and build: of one slot, or of all slots of a worker.

A process's first build takes several times as long as the next ones, so the slots of a GPU share a few that are kept
warm. What happens to a request of one slot is no other's trouble: who finds all of them busy waits, and a process that
has died is started anew for the next request.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress

from workers.engine.protocol import Answer, Progress, Verb
from workers.engine.verbs import WARM_UP
from workers.interruption import Interruption, InterruptionError
from workers.processes.child import Child, ChildError

POLL_SECONDS = 0.1
"""How often who waits for another slot's request looks whether it is interrupted."""

WARM_UP_SECONDS = 120.0


class _Process:
    """One child, or the place of one."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._child: Child | None = None
        self.is_trusted = True

    def ready(self) -> Child:
        """The child, started anew if it has died or is not to be trusted. Raises OSError."""
        if self._child is None or not self.is_trusted or not self._child.alive():
            self.end()
            self._child = self._start()
        return self._child

    def end(self) -> None:
        child, self._child, self.is_trusted = self._child, None, True
        if child is not None:
            child.kill()


class Builder:
    """Answers requests as a `Child` does, from any thread, as many at once as it has processes."""

    def __init__(self, start: Callable[[], Child], processes: int = 1) -> None:
        """`start`: starts a process; raises OSError if it cannot be."""
        self._processes = [_Process(start) for _ in range(processes)]
        # The one that was used last is the warmest.
        self._free = queue.LifoQueue[_Process]()
        for process in self._processes:
            self._free.put(process)

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
        """As of `Child`, when a process is free; a wait for one is told as a wait. Raises OSError, too."""
        with self._held(on_progress, interruption) as process:
            return process.ready().request(
                verb,
                arguments,
                timeout_seconds=timeout_seconds,
                silence_seconds=silence_seconds,
                on_progress=on_progress,
                interruption=interruption,
                stops_for=stops_for,
            )

    def warm_up(self, arguments: Mapping[str, object], interruption: Interruption) -> None:
        """Let each process do, on threads of its own, what its first build would begin with. The processes are started
        by this thread, which lives as long as they do. What goes wrong is told by the build that meets it."""
        held = [self._free.get() for _ in self._processes]
        for process in held:
            with suppress(OSError):
                process.ready()
            threading.Thread(
                target=self._warm_up, args=(process, arguments, interruption), name="warms up a builder", daemon=True
            ).start()

    def discard(self) -> None:
        """Start the processes anew before their next requests: after an error a device's state is not to be trusted."""
        for process in self._processes:
            process.is_trusted = False

    def kill(self) -> None:
        """End the processes at once, each after the request that it works on."""
        held = [self._free.get() for _ in self._processes]
        for process in held:
            process.end()
            self._free.put(process)

    def _warm_up(self, process: _Process, arguments: Mapping[str, object], interruption: Interruption) -> None:
        try:
            with suppress(ChildError, OSError, InterruptionError):
                process.ready().request(WARM_UP, arguments, timeout_seconds=WARM_UP_SECONDS, interruption=interruption)
        finally:
            self._free.put(process)

    @contextmanager
    def _held(self, on_progress: Progress | None, interruption: Interruption | None) -> Generator[_Process]:
        """Have a process. Raises the interruption's cause."""
        try:
            process = self._free.get_nowait()
        except queue.Empty:
            process = self._awaited(on_progress or (lambda progress: None), interruption)
        try:
            yield process
        finally:
            self._free.put(process)

    def _awaited(self, on_progress: Progress, interruption: Interruption | None) -> _Process:
        started_at = time.monotonic()
        on_progress({"waiting": True})
        while True:
            if interruption is not None:
                interruption.check()
            with suppress(queue.Empty):
                process = self._free.get(timeout=POLL_SECONDS)
                break
        on_progress({"waited_seconds": time.monotonic() - started_at})
        return process
