"""Why an attempt stops before its end, and the flag through which another thread or a signal handler says so.

InterruptionError
├── LeaseLostError        another attempt holds the trial, or it is gone: throw the result away
├── TrialCancelledError   the sweep does not want the trial any more
├── TrialPrunedError      the service expects nothing of the trial
└── DrainedError          the worker was asked to stop: give the attempt back, uncharged
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import TypeVar, cast

Answer = TypeVar("Answer")


class InterruptionError(Exception):
    """The attempt is not to be continued."""


class LeaseLostError(InterruptionError):
    """Another attempt holds the trial, or the trial is gone."""


class TrialCancelledError(InterruptionError):
    """The sweep does not want the trial any more."""


class TrialPrunedError(InterruptionError):
    """The service expects nothing of the trial."""


class DrainedError(InterruptionError):
    """The worker was asked to stop."""


class Interruption:
    """A flag with a reason. It is set once: later reasons are ignored, but a lost lease outranks every other.

    `fileno()` becomes readable when it is set, so that whoever waits for a child can wait for both without polling.
    Setting takes no lock: a signal handler may do it.
    """

    def __init__(self) -> None:
        self._cause: InterruptionError | None = None
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)

    def set(self, cause: InterruptionError) -> None:
        """Stop the attempt because of `cause`."""
        if self._cause is None or isinstance(cause, LeaseLostError):
            self._cause = cause
            with contextlib.suppress(OSError):
                os.write(self._writable, b"x")

    @property
    def cause(self) -> InterruptionError | None:
        return self._cause

    def check(self) -> None:
        """Raise the cause if there is one."""
        if self._cause is not None:
            raise self._cause

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; True if it is set."""
        if self._cause is None:
            select.select([self._readable], [], [], max(0.0, seconds))
        return self._cause is not None

    def fileno(self) -> int:
        return self._readable

    def close(self) -> None:
        """Give the descriptors back. Setting it afterwards has no effect."""
        self._cause = self._cause or InterruptionError("the attempt has ended")
        readable, writable, self._readable, self._writable = self._readable, self._writable, -1, -1
        for descriptor in (readable, writable):
            if descriptor >= 0:
                os.close(descriptor)


def call_until(interruption: Interruption, call: Callable[[], Answer]) -> Answer:
    """Make a call in another thread and wait for its answer. Raises the interruption's cause, and abandons the call."""
    answers: queue.SimpleQueue[tuple[Answer | None, Exception | None]] = queue.SimpleQueue()
    answered = Interruption()

    def make() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
            answers.put((None, error))
        answered.set(InterruptionError("answered"))

    thread = threading.Thread(target=make, name="call", daemon=True)
    thread.start()
    if answered.cause is None and interruption.cause is None:
        select.select([answered, interruption], [], [])
    interruption.check()
    thread.join()
    answered.close()
    answer, error = answers.get()
    if error is not None:
        raise error
    return cast("Answer", answer)
