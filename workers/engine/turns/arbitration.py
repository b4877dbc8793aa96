"""Turns on a device: a request that needs it alone has it alone, the others share it, in the order of their arrival.

A measurement needs the device alone. So do a load whose memory is weighed by the device's own figure, a build that
times kernels, and the steps of a training whose budget is in seconds. A load and the measurement after it are one
turn: what shares the device has to leave it once for both. All else that computes there (the steps of other trainings,
evaluations, references) shares it, and stops at its next seam when a request waits. On a CPU exports, builds and loads
share it, too; they have no seams. A build on a GPU that compares no times of kernels shares it and is stopped wherever
it is (pausing.py).

            comes                    first in the queue                     the device is free for it
    away ──────────▶ waits in the queue ──────────▶ waits for the device ──────────▶ has the device
      ▲                                                                                  │
      └────────────────────── has done, or is killed, or gives way and comes again ──────┘

Two files of a device, in the folder that processes and containers share. The kernel lets go of a lock however its
holder ends: if a holder is killed, the next proceeds.

    .queue      a waiting request locks one byte of it, alone: the byte's offset is the time of its arrival (nanoseconds
                of the monotonic clock). The first in the queue is the one that can lock all bytes before its own. It
                leaves the queue when it has the device. A holder looks, at each seam, whether any byte is locked
    .device     locked alone, or shared. A holder that shares it and gives way to none until it has done (a build) locks
                its first byte, too: to give way beside it lets none in, so trainings step on until it has done

Most of what shares the device is short, and a trial has much of it. So a request for the device alone, and one that
comes again after it has given way, stand behind those that come to share it within PRECEDENCE_SECONDS. A holder that
has waited keeps the device for KEPT_SECONDS, and for longer if several others had it before: a training that others
always wait for makes more than one step at a time, and has its fifth of the device whether one worker of the machine
measures or six.

None starves, whatever the mix: a request that comes later than that stands behind. No two wait for each other: a
waiting request has neither the device nor an earlier byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

from ..background import in_background

QUEUE, DEVICE = ".queue", ".device"

PRECEDENCE_SECONDS = 3.0
"""About as long as a measurement or a build has the device."""

KEPT_SECONDS = 0.5
"""A measurement takes about four times as long: trainings have a fifth of the device, whoever measures."""

MEASURED_SECONDS = 2.0
"""How long a measurement takes. Whoever waited for several keeps the device for KEPT_SECONDS for each of them."""

MOST_KEPT = 6
"""Measurements that count towards that, at most."""

SAID_EVERY_SECONDS = 5.0
"""How often somebody who waits says so."""


@contextlib.contextmanager
def alone(device: Path, on_wait: Callable[[], None]) -> Generator[float]:
    """Have the device alone; yields for how many seconds others had it meanwhile.

    `device`: its files' path without their endings. `on_wait`: called, from another thread, when the wait begins and
    every few seconds until it is over. Raises OSError if the files cannot be opened.
    """
    with Turn(device, on_wait, alone=True) as turn:
        yield turn.take()


class Turn:
    """A place on a device that is taken, and given up between two pieces of work while others wait.

    A context, whose end gives the device up. In a process one at a time may wait: the locks of the queue are its own.
    Raises OSError if the files cannot be opened.
    """

    def __init__(
        self,
        device: Path,
        on_wait: Callable[[], None],
        *,
        alone: bool = False,
        gives_way: bool = True,
        synchronize: Callable[[], None] = lambda: None,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        """`device`, `on_wait`: as of `alone`. `gives_way`: whether it does, between two pieces of work. `synchronize`:
        returns when the device has done what it was given. `kept_seconds`: how long it is kept after a wait for one
        measurement."""
        self._path = device
        self._on_wait = on_wait
        self._how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        self._is_last = alone
        """Whether it stands behind those that come to share the device in the next seconds."""
        self._gives_way = gives_way
        self._kept_seconds = kept_seconds
        self._kept_until = 0.0
        self._synchronize = synchronize
        self._files = contextlib.ExitStack()
        self._queue = self._device = -1
        self._has_device = False

    def __enter__(self) -> Turn:
        with contextlib.ExitStack() as files:
            self._queue, self._device = (
                files.enter_context(open(f"{self._path}{ending}", "a+b", opener=open_for_all)).fileno()
                for ending in (QUEUE, DEVICE)
            )
            self._files = files.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._has_device = False
        self._files.close()

    def take(self) -> float:
        """Have the device, after whoever came before; the seconds that this took, 0 if nobody had it."""
        if self._has_device:
            return 0.0
        place = time.monotonic_ns() + int(PRECEDENCE_SECONDS * 1e9 if self._is_last else 0)
        fcntl.lockf(self._queue, fcntl.LOCK_EX, 1, place)
        try:
            seconds = self._wait(place)
        finally:
            fcntl.lockf(self._queue, fcntl.LOCK_UN, 1, place)
        self._has_device = True
        if not self._gives_way:
            fcntl.lockf(self._device, fcntl.LOCK_SH, 1, 0)
        if seconds:
            measurements = min(max(1.0, seconds / MEASURED_SECONDS), MOST_KEPT)
            self._kept_until = time.monotonic() + measurements * self._kept_seconds
        return seconds

    def give_way(self) -> float:
        """Between two pieces of work: let those who wait have the device first; the seconds that this took.

        The first call takes the device.
        """
        if self._has_device:
            if time.monotonic() < self._kept_until or not self._has_waiters() or self._is_held_for_good():
                return 0.0
            self._synchronize()
            self.give_up()
            self._is_last = True
        return self.take()

    def give_up(self) -> None:
        """Let the others have the device."""
        fcntl.lockf(self._device, fcntl.LOCK_UN, 1, 0)
        fcntl.flock(self._device, fcntl.LOCK_UN)
        self._has_device = False

    def _wait(self, place: int) -> float:
        """Until it is first in the queue and has the device; the seconds that this took."""
        if self._is_first(place, fcntl.LOCK_NB) and self._lock_device(fcntl.LOCK_NB):
            return 0.0
        started_at = time.monotonic()
        with in_background(self._report_wait, "waits for its turn"):
            while True:
                self._is_first(place)
                self._lock_device()
                if self._is_first(place, fcntl.LOCK_NB):
                    return time.monotonic() - started_at
                # Somebody has come meanwhile who stands before it.
                fcntl.flock(self._device, fcntl.LOCK_UN)

    def _report_wait(self, is_over: threading.Event) -> None:
        self._on_wait()
        while not is_over.wait(SAID_EVERY_SECONDS):
            self._on_wait()

    def _is_first(self, place: int, now: int = 0) -> bool:
        """Wait until nobody stands before `place`; with LOCK_NB: whether nobody does."""
        if not _done(lambda: fcntl.lockf(self._queue, fcntl.LOCK_SH | now, place, 0)):
            return False
        fcntl.lockf(self._queue, fcntl.LOCK_UN, place, 0)
        return True

    def _lock_device(self, now: int = 0) -> bool:
        return _done(lambda: fcntl.flock(self._device, self._how | now))

    def _has_waiters(self) -> bool:
        if not _done(lambda: fcntl.lockf(self._queue, fcntl.LOCK_SH | fcntl.LOCK_NB)):
            return True
        fcntl.lockf(self._queue, fcntl.LOCK_UN)
        return False

    def _is_held_for_good(self) -> bool:
        """Whether another one has the device who gives way to nobody."""
        if not _done(lambda: fcntl.lockf(self._device, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)):
            return True
        fcntl.lockf(self._device, fcntl.LOCK_UN, 1, 0)
        return False


def make_files(device: Path) -> None:
    """Make what is missing of a device's files. Raises OSError."""
    with Turn(device, on_wait=lambda: None):
        pass


def open_for_all(path: str, flags: int) -> int:
    """An opener of files that every user of the machine may lock."""
    # If they lie in a folder like /tmp, the kernel refuses O_CREAT for a file that is there and another user's.
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags & ~os.O_CREAT)
    descriptor = os.open(path, flags, 0o666)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, 0o666)
    return descriptor


def _done(lock: Callable[[], None]) -> bool:
    """Take a lock; False if it was not to wait and another holds it."""
    try:
        lock()
    except (BlockingIOError, PermissionError):
        return False
    return True
