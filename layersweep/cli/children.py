"""Child processes that never outlive the command that started them, and whose logs can be found."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from layersweep.errors import LayersweepError

STOP_SECONDS = 15.0
TAIL_CHARACTERS = 2000


class ChildDiedError(LayersweepError):
    """A child ended although it was needed."""


class Child:
    """One `layersweep ...` process, in a session of its own: Ctrl-C reaches the parent, which stops it in order."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "layersweep", *arguments],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> int:
        """Wait until the process has ended by itself; its exit code."""
        return self._process.wait()

    def check(self) -> None:
        """Raise ChildDiedError, with the end of the log, if the process has ended."""
        code = self._process.poll()
        if code is None:
            return
        tail = self.log.read_text(errors="replace")[-TAIL_CHARACTERS:].strip()
        raise ChildDiedError(f"the {self.name} ended with code {code}. Its log, {self.log}, ends with:\n{tail}")

    def stop(self) -> None:
        """End the process and all that it started: politely, then by force after a while."""
        if self._process.poll() is None:
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Children:
    """Stops its children at the end of the block, whatever ends it: an error, Ctrl-C, SIGTERM or a closed terminal."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._signals = contextlib.ExitStack()

    def __enter__(self) -> Children:
        self._signals.enter_context(leaving_on_signals())
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C, while they end, must not leave one behind.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            # The last started first: a worker gives its lease back to a service that still answers.
            for child in reversed(self._children):
                child.stop()
        finally:
            signal.signal(signal.SIGINT, interrupt)
            self._signals.close()

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        child = Child(name, arguments, environment, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        for child in self._children:
            child.check()


@contextlib.contextmanager
def leaving_on_signals() -> Generator[None]:
    """Leave the block by SystemExit on SIGTERM and SIGHUP, as by KeyboardInterrupt on Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
