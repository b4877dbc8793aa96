"""Whose turn it is on a device: one measurement at a time, and no step of a training beside it.

Three files of a device, in the folder that processes and containers share. Each is locked by `flock`: a lock ends with
its holder, however that ends.

    .waiting     trainings share it from when they wait until they have made a step. A measurement asks for it alone
                 before it queues, and lets go of it at once: so none that comes later goes before a training that waits
    .measuring   a measurement's alone. A training looks between its steps whether it is taken
    .stepping    trainings share it while they make steps. A measurement begins when it has it alone

Who waits for `.measuring` holds `.waiting` at most, and who waits for `.stepping` nothing that a step needs: nobody
waits for somebody who waits for him.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

WAITING, MEASURING, STEPPING = ".waiting", ".measuring", ".stepping"

SAID_EVERY_SECONDS = 5.0
"""How often somebody who waits says so."""


@contextlib.contextmanager
def measuring(device: Path, on_wait: Callable[[], None]) -> Generator[float]:
    """Have the device for one measurement; yields for how many seconds others had it meanwhile.

    `device`: its files' path without their endings. `on_wait`: called, from another thread, when the wait begins and
    every few seconds until it is over. Raises OSError where the files cannot be opened.
    """
    with _Locks(device, on_wait) as locks:
        locks.take(WAITING, fcntl.LOCK_EX)
        locks.leave(WAITING)
        locks.take(MEASURING, fcntl.LOCK_EX)
        locks.take(STEPPING, fcntl.LOCK_EX)
        yield locks.waited_seconds


class Steps:
    """A training's side. A context: the training has the device, with other trainings, from its first
    `yield_to_measurement` on."""

    def __init__(self, device: Path, on_wait: Callable[[], None], settle: Callable[[], None]) -> None:
        """`device`, `on_wait`: as of `measuring`. `settle`: returns when the device has done what it was given."""
        self._locks = _Locks(device, on_wait)
        self._settle = settle
        self._stepping = False
        self._owed = False
        """It has waited, and the step that it waited for is not over."""

    def __enter__(self) -> Steps:
        self._locks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._locks.__exit__(*exception)

    def yield_to_measurement(self) -> float:
        """Before each step: wait until no measurement has the device or waits for it; the seconds that this took."""
        if self._stepping and not self._wanted():
            return 0.0
        before = self._locks.waited_seconds
        self._locks.take(WAITING, fcntl.LOCK_SH)
        if self._stepping:
            self._settle()
            self._locks.leave(STEPPING)
        self._locks.take(MEASURING, fcntl.LOCK_SH)
        self._locks.take(STEPPING, fcntl.LOCK_SH)
        self._locks.leave(MEASURING)
        self._stepping = True
        waited_seconds = self._locks.waited_seconds - before
        self._owed = waited_seconds > 0
        if not self._owed:
            self._locks.leave(WAITING)
        return waited_seconds

    def _wanted(self) -> bool:
        if self._owed:
            self._owed = False
            self._locks.leave(WAITING)
        if not self._locks.take_if_free(MEASURING, fcntl.LOCK_SH):
            return True
        self._locks.leave(MEASURING)
        return False


def make_files(device: Path) -> None:
    """Make what is missing of a device's files. Raises OSError."""
    with _Locks(device, on_wait=lambda: None):
        pass


def open_for_all(path: str, flags: int) -> int:
    """An opener of files that every user of the machine may lock."""
    # Where they lie in a folder like /tmp, the kernel refuses O_CREAT for a file that is there and another user's.
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags & ~os.O_CREAT)
    descriptor = os.open(path, flags, 0o666)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, 0o666)
    return descriptor


class _Locks:
    """The three files of a device, opened for one holder: a lock is an open file's."""

    def __init__(self, device: Path, on_wait: Callable[[], None]) -> None:
        self._device = device
        self._on_wait = on_wait
        self._files = contextlib.ExitStack()
        self._descriptors: dict[str, int] = {}
        self.waited_seconds = 0.0

    def __enter__(self) -> _Locks:
        with contextlib.ExitStack() as files:
            for ending in (WAITING, MEASURING, STEPPING):
                file = files.enter_context(open(f"{self._device}{ending}", "ab", opener=open_for_all))
                self._descriptors[ending] = file.fileno()
            self._files = files.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def take(self, ending: str, how: int) -> None:
        """Take a lock, when it is free."""
        if self.take_if_free(ending, how):
            return
        started_at = time.monotonic()
        with _repeated(self._on_wait):
            fcntl.flock(self._descriptors[ending], how)
        self.waited_seconds += time.monotonic() - started_at

    def take_if_free(self, ending: str, how: int) -> bool:
        try:
            fcntl.flock(self._descriptors[ending], how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self, ending: str) -> None:
        fcntl.flock(self._descriptors[ending], fcntl.LOCK_UN)


@contextlib.contextmanager
def _repeated(call: Callable[[], None]) -> Generator[None]:
    """Call it now and every few seconds, in a thread of its own, until the context ends."""
    over = threading.Event()

    def repeat() -> None:
        call()
        while not over.wait(SAID_EVERY_SECONDS):
            call()

    thread = threading.Thread(target=repeat, name="waits for its turn", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
