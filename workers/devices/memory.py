"""Room for several attempts on one device: who is let in is expected to fit beside those that are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager

from workers.interruption import Interruption

USABLE_SHARE = 0.9
"""Of a device's memory: the rest is the driver's, and what estimates are wrong by."""

LEARNT_SHARE = 0.25
"""Of what was seen last in the correction of the next estimates."""

CORRECTIONS = (0.25, 8.0)
"""Beyond these, what was seen is not the estimate's fault."""

POLL_SECONDS = 0.2
"""How often who waits looks whether it is interrupted."""


class DeviceMemory:
    """A device's memory, shared by attempts in the order in which they came. Thread-safe."""

    def __init__(self, total_bytes: int = 0) -> None:
        """`total_bytes`: 0 if the device does not say: then everybody is let in."""
        self._usable_bytes = total_bytes * USABLE_SHARE
        self._changed = threading.Condition()
        self._queue: list[MemoryShare] = []
        self._inside: list[MemoryShare] = []
        self._correction = 1.0

    def share(self, estimated_bytes: float, interruption: Interruption) -> MemoryShare:
        """The share of an attempt that is not let in yet; `interruption` ends its waits."""
        return MemoryShare((self,), estimated_bytes, interruption)

    def enter(self, share: MemoryShare, on_wait: Callable[[], None]) -> None:
        """Wait until there is room. Raises the interruption's cause."""
        with self._changed:
            self._queue.append(share)
            try:
                if not self._has_room(share):
                    on_wait()
                while not self._has_room(share):
                    self._changed.wait(POLL_SECONDS)
                    share.interruption.check()
                for other in self._inside:
                    other.has_had_neighbours = True
                share.has_had_neighbours = bool(self._inside)
                self._inside.append(share)
            finally:
                self._queue.remove(share)
                self._changed.notify_all()

    def leave(self, share: MemoryShare) -> None:
        """Make room. Harmless for who is not inside."""
        with self._changed:
            if share in self._inside:
                self._inside.remove(share)
            self._changed.notify_all()

    def learn(self, estimated_bytes: float, seen_bytes: float) -> None:
        """Correct later estimates by what an attempt took."""
        if estimated_bytes <= 0 or seen_bytes <= 0:
            return
        with self._changed:
            low, high = CORRECTIONS
            found = min(high, max(low, seen_bytes / estimated_bytes))
            # What is too low costs an attempt its time: it is believed at once.
            share = 1.0 if found > self._correction else LEARNT_SHARE
            self._correction += share * (found - self._correction)

    def _has_room(self, share: MemoryShare) -> bool:
        if self._queue[0] is not share:
            return False
        if not self._inside:
            return True
        if share.is_alone or any(other.is_alone for other in self._inside):
            return False
        needed = sum(each.estimated_bytes for each in (*self._inside, share)) * self._correction
        return not self._usable_bytes or needed <= self._usable_bytes


class MemoryShare:
    """What one attempt takes of its device's memory, or of that of several."""

    def __init__(self, memories: Sequence[DeviceMemory], estimated_bytes: float, interruption: Interruption) -> None:
        """`memories`: in the order of the devices' UUIDs, so that no two attempts wait for each other."""
        self.estimated_bytes = estimated_bytes
        self.interruption = interruption
        self.is_alone = False
        """Whether it is to have no neighbours."""
        self.has_had_neighbours = False
        """Since it was let in."""
        self._memories = memories

    @classmethod
    def alone_on(
        cls, memories: Sequence[DeviceMemory], estimated_bytes: float, interruption: Interruption
    ) -> MemoryShare:
        """Of an attempt that has several devices by itself: those that are there end first, those that come later wait
        behind it."""
        share = cls(memories, estimated_bytes, interruption)
        share.is_alone = True
        return share

    @contextmanager
    def held(self, on_wait: Callable[[], None], on_entered: Callable[[], None]) -> Generator[None]:
        """Be let in for the time of the context. Raises the interruption's cause."""
        with ExitStack() as entered:
            for memory in self._memories:
                memory.enter(self, on_wait)
                entered.callback(memory.leave, self)
            on_entered()
            yield

    def learn(self, seen_bytes: float) -> None:
        """Correct later estimates by what it took."""
        self._memories[0].learn(self.estimated_bytes, seen_bytes)
