"""The parent's side of a child process: requests by JSON lines, precise errors, no orphans.

ChildError
├── ChildDiedError      the process ended: by itself (a crash) or by a signal from outside
├── ChildTimeoutError   it took too long, or said nothing for too long; it has been killed
└── ChildRequestError   it answered with an error and is still there
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import cast

from workers.engine.protocol import Answer, JsonObject, Progress, Verb
from workers.interruption import Interruption, InterruptionError
from workers.processes.environment import child_environment

ROOT = Path(__file__).resolve().parents[2]
"""Where `python -m workers...` finds its modules."""

STDERR_TAIL_BYTES = 32_768
STOPPING_LOOK_SECONDS = 1.0
"""How often it is looked for another interruption while a child stops."""
EXIT_SECONDS = 5.0
"""How long a child may take to end once its answers have ended, or once it was asked to."""
WAITS_TOLD_SECONDS = 120.0
"""How long a child may be silent while it waits for its turn. It says every few seconds that it does (arbitration.py):
one that does not has been stopped, or who told it for it has ended."""

OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that nobody raises in himself: an operator, a container's end or the kernel's memory killer sent them."""


class ChildError(Exception):
    """A request to a child did not succeed."""


class ChildDiedError(ChildError):
    """The process ended while it was needed. `code` is its exit status, negative for a signal; `tail` the end of its
    output."""

    def __init__(self, name: str, code: int, tail: str, *, killed_by_us: bool = False) -> None:
        super().__init__(f"the {name} process {describe_exit(code)}")
        self.code = code
        self.tail = tail
        self.killed_by_us = killed_by_us

    @property
    def killed_from_outside(self) -> bool:
        """True if another process or the kernel ended it: the same request may well succeed next time."""
        return not self.killed_by_us and self.code < 0 and -self.code in OUTSIDE_SIGNALS


class ChildTimeoutError(ChildError):
    """The child took too long and has been killed."""

    def __init__(self, message: str, tail: str) -> None:
        super().__init__(message)
        self.tail = tail


class ChildRequestError(ChildError):
    """The child answered with an error: `kind` is one of the protocol's (build, out_of_memory, unsupported, ...)."""

    def __init__(self, kind: str, message: str, tail: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.tail = tail


def describe_exit(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended with exit status {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


class Child:
    """One child process that answers one request at a time.

    It leads a process group of its own, so that a Ctrl-C meant for the parent does not reach it and `kill` reaches what
    it started; it dies with its parent, even in the middle of a native call (Linux). To be used from one thread; the
    kernel ties its life to the thread that made it.
    """

    def __init__(
        self, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> None:
        """Start `argv --answers-fd N`. Raises OSError if it cannot be started.

        `env` is added to what a child sees of this process's environment.
        """
        self.name = name
        self._killed = False
        self._identity = 0
        self._stops_for: type[InterruptionError] | None = None
        self._is_stopping = False
        self._received = bytearray()
        answers, childs_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*argv, "--answers-fd", str(childs_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[childs_end],
                cwd=cwd,
                env=child_environment(argv[0], ROOT, env or {}),
                start_new_session=True,
            )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(childs_end)
        self._answers = answers
        os.set_blocking(answers, False)
        self._tail = Tail(self._process, name)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

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
        """Send one request and return its result.

        `timeout_seconds` bounds all of it but for waits that progress tells of (`waiting`, until the next message),
        `silence_seconds` the time without progress; None is no bound. A wait that is told of no more is no wait.
        An interruption of the kind `stops_for` ends nothing: the child is told to `stop`, and its answer awaited.
        Raises ChildError (ChildDiedError, ChildTimeoutError, ChildRequestError), or the cause of `interruption`.
        After a timeout, an interruption or an error of `on_progress` the child has been killed: nobody waits for what
        it still would have answered.
        """
        if interruption is not None:
            interruption.check()
        self._identity += 1
        self._stops_for, self._is_stopping = stops_for, False
        self._send({"id": self._identity, "verb": verb, **(arguments or {})})
        try:
            return cast("Answer", self._await(verb, timeout_seconds, silence_seconds, on_progress, interruption))
        except (ChildDiedError, ChildRequestError):
            raise
        except BaseException:
            self.kill()
            raise

    def _send(self, message: Mapping[str, object]) -> None:
        line = json.dumps(message, allow_nan=False)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._died() from None

    def _check(self, interruption: Interruption) -> None:
        """Raise the interruption's cause, or tell the child to stop if that is enough."""
        if self._stops_for is None or not isinstance(interruption.cause, self._stops_for):
            interruption.check()
        elif not self._is_stopping:
            self._is_stopping = True
            # No request has this number: nobody awaits the answer.
            self._send({"id": 0, "verb": "stop"})

    def kill(self) -> None:
        """End the process and what it started, at once, and wait until it is gone."""
        self._killed = self._killed or self._process.poll() is None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._release()

    def close(self) -> None:
        """Let an idle process end by itself; kill it if it does not."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._release()

    def tail(self) -> str:
        """The end of what the process has printed, at most 32 KiB."""
        return self._tail.text()

    def _await(
        self,
        verb: str,
        timeout_seconds: float | None,
        silence_seconds: float | None,
        on_progress: Progress | None,
        interruption: Interruption | None,
    ) -> JsonObject:
        started_at = heard_at = time.monotonic()
        waiting = False
        while True:
            limits = (None, WAITS_TOLD_SECONDS) if waiting else (timeout_seconds, silence_seconds)
            for message in self._receive(started_at, heard_at, verb, *limits, interruption):
                now = time.monotonic()
                if waiting:
                    started_at += now - heard_at
                heard_at = now
                waiting = bool(message.get("progress", {}).get("waiting"))
                if message.get("id") != self._identity:
                    continue
                if "progress" in message:
                    if on_progress is not None:
                        on_progress(message["progress"])
                elif message.get("ok"):
                    return message["result"]
                else:
                    error = message["error"]
                    raise ChildRequestError(error["kind"], error["message"], self.tail())

    def _receive(
        self,
        started_at: float,
        heard_at: float,
        verb: str,
        timeout_seconds: float | None,
        silence_seconds: float | None,
        interruption: Interruption | None,
    ) -> list[JsonObject]:
        """Wait for something to happen; the messages that have come, if that is what happened."""
        now = time.monotonic()
        limits = [
            (start + seconds - now, f"{what} {seconds:g} s")
            for start, seconds, what in (
                (started_at, timeout_seconds, "was not done within"),
                (heard_at, silence_seconds, "made no progress within"),
            )
            if seconds is not None
        ]
        left_seconds, limit = min(limits, default=(None, ""))
        if left_seconds is not None and left_seconds <= 0:
            raise ChildTimeoutError(f"`{verb}` of the {self.name} process {limit}", self.tail())
        watched = [self._answers]
        if self._is_stopping:
            # The interruption stays readable; a lost lease may still outrank it.
            left_seconds = min(left_seconds or STOPPING_LOOK_SECONDS, STOPPING_LOOK_SECONDS)
        elif interruption is not None:
            watched.append(interruption.fileno())
        ready = connection.wait(watched, left_seconds)
        if interruption is not None:
            self._check(interruption)
        if self._answers not in ready:
            return []
        data = os.read(self._answers, 1 << 20)
        if not data:
            raise self._died()
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        return [json.loads(line) for line in lines]

    def _died(self) -> ChildDiedError:
        """The process has closed its answers: wait for its end and say what it was."""
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.returncode
        self._tail.join()
        return ChildDiedError(self.name, code, self.tail(), killed_by_us=self._killed)

    def _release(self) -> None:
        """Give back the descriptors of a process that has ended."""
        if self._answers < 0:
            return
        self._tail.join()
        os.close(self._answers)
        self._answers = -1
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()


class Tail:
    """Reads what a process prints, so that it never blocks on it, and keeps the end."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._chunks: collections.deque[bytes] = collections.deque()
        self._size_bytes = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.read, name=f"{name} output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        with self._lock:
            data = b"".join(self._chunks)
        return data[-STDERR_TAIL_BYTES:].decode(errors="replace")

    def join(self) -> None:
        self._thread.join(EXIT_SECONDS)

    def read(self) -> None:
        with self._stream, contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self._stream.fileno(), 65_536):
                with self._lock:
                    self._chunks.append(chunk)
                    self._size_bytes += len(chunk)
                    while self._size_bytes - len(self._chunks[0]) >= STDERR_TAIL_BYTES:
                        self._size_bytes -= len(self._chunks.popleft())
