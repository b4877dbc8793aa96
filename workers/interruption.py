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
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import Generic, TypeVar, cast

Answer = TypeVar("Answer")


class InterruptionError(Exception):
    """The attempt is not to be continued."""


class LeaseLostError(InterruptionError):
    """Another attempt holds the trial, or the trial is gone."""


class TrialCancelledError(InterruptionError):
    """The sweep does not want the trial any more."""


class TrialPrunedError(InterruptionError):
    """The service expects nothing of the trial. `keeps_state`: it wants the state of the training all the same."""

    def __init__(self, reason: str, *, keeps_state: bool = False) -> None:
        super().__init__(reason)
        self.keeps_state = keeps_state


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
            connection.wait([self._readable], max(0.0, seconds))
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


class InterruptibleCall(Generic[Answer]):
    """A call in a thread of its own, which whoever waits for its answer may abandon."""

    def __init__(self, call: Callable[[], Answer], on_abandoned: Callable[[Answer], None]) -> None:
        """Begin it. `on_abandoned` is told, by its thread, an answer that nobody waits for any more."""
        self._call = call
        self._on_abandoned = on_abandoned
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._answer: tuple[Answer | None, Exception | None] | None = None
        self._answered = Interruption()
        self._thread = threading.Thread(target=self._make, name="call", daemon=True)
        self._thread.start()

    def wait(self, interruption: Interruption) -> Answer:
        """Its answer. Raises what it raised, or the interruption's cause, and then abandons it."""
        if self._answered.cause is None and interruption.cause is None:
            connection.wait([self._answered.fileno(), interruption.fileno()])
        with self._lock:
            self._is_abandoned = self._answer is None
        if self._answer is None:
            interruption.check()
        assert self._answer is not None, "either of the two has come"
        self.end(None)
        answer, error = self._answer
        if error is not None:
            raise error
        return cast("Answer", answer)

    def end(self, seconds: float | None) -> None:
        """Wait for its thread, at most so long."""
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._answered.close()

    def _make(self) -> None:
        answer: Answer | None = None
        error: Exception | None = None
        try:
            answer = self._call()
        except Exception as raised:  # noqa: BLE001 - raised again in the waiting thread
            error = raised
        with self._lock:
            self._answer = answer, error
            is_abandoned = self._is_abandoned
        self._answered.set(InterruptionError("answered"))
        if is_abandoned and error is None:
            self._on_abandoned(cast("Answer", answer))
