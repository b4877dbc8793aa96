"""A build's turn on the device, in which the build is stopped while others have the device.

A library's build is one long call that never gives way by itself. So a guard, a small process of the builder's own,
has the turn for it. If somebody waits, the guard stops the builder (SIGSTOP), which from then on gives the device
nothing more to do and takes no memory of it. It gives way, and lets the builder go on (SIGCONT) when it is its turn
again:

    builder      ── builds ──▶ stopped ──────────────────────────▶ builds ──▶ end
    guard        has the turn ▶ stops it, gives way, waits, has it ▶ lets it go on

Only for builds that compare no times of kernels: a stop would be in them. The guard tells the waits of the builder's
request, which cannot while it is stopped. The two end together: a builder without a guard would be stopped for ever, or
build beside a measurement.

    python -m workers.engine.turns.pausing DEVICE BUILDER WORKER [ANSWERS_FD]     the guard; BUILDER starts it
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..lifetime import end_with_parent
from ..protocol import JsonObject, Progress, Request, RequestProgress, as_line, progress_message
from .arbitration import Turn
from .request_turn import GUARD, RequestTurn, device_of, stat_fields, waiting_for

LOOK_SECONDS = 0.02
"""How often the guard looks whether somebody waits: so long a measurement waits for a build."""

STOPPED_WITHIN_SECONDS = 5.0
"""A call into the driver comes to its end first."""


class PausableTurn:
    """A build's turn on the device that its request names; a context, whose end gives the device up.

    Waits are told as of every turn (request_turn.py), those in which the build is stopped, too. A request without
    `turns` waits for nobody.
    """

    def __init__(self, guards: Guards, request: Request, progress: Progress) -> None:
        """Raises RequestError("invalid") if `turns` is no path."""
        self._waited_seconds = 0.0
        self._stops: list[tuple[float, float]] = []
        """Since when and until when, of the monotonic clock. Known at its end."""
        device = device_of(request)
        self._guard = None if device is None else guards.of(device, progress)
        self._unguarded = RequestTurn(request, progress, "shared", gives_way=False)
        self._progress = progress
        self._end = contextlib.ExitStack()
        self._is_taken = False

    def __enter__(self) -> PausableTurn:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.close()

    def give_way(self) -> None:
        """Have the device with others, after those who wait for it; from then on the guard gives way.

        If no guard can be started, nobody does: the build has the device until it is done.
        """
        if self._guard is None or self._is_taken:
            return
        identity = self._progress.identity if isinstance(self._progress, RequestProgress) else None
        try:
            self._waited_seconds = self._guard.take(identity)
            self._end.callback(self._give_up)
        except OSError as problem:
            sys.stderr.write(f"a build is not stopped for others, as no process can be started for it: {problem}\n")
            self._waited_seconds = self._end.enter_context(self._unguarded).give_way()
        self._is_taken = True

    def _give_up(self) -> None:
        assert self._guard is not None
        self._stops = self._guard.give_up()

    def waited_seconds_until(self, moment: float) -> float:
        """For how long the build waited before a moment of the monotonic clock, stopped or not. Known at its end."""
        return self._waited_seconds + sum(until - since for since, until in self._stops if since < moment)


class Guards:
    """Those of a builder: one for each device that its requests name."""

    def __init__(self) -> None:
        self._guards: dict[Path, _Guard] = {}

    def of(self, device: Path, progress: Progress) -> _Guard:
        """`progress`: of the request. It is told by who answers all requests of this process."""
        answers_fd = progress.descriptor if isinstance(progress, RequestProgress) else None
        return self._guards.setdefault(device, _Guard(device, answers_fd))


class _Guard:
    """The guard as its builder sees it; it is started when it is first needed. The builder ends if it is gone."""

    def __init__(self, device: Path, answers_fd: int | None) -> None:
        self._device = device
        self._answers_fd = answers_fd
        self._process: subprocess.Popen[str] | None = None

    def take(self, request: Any) -> float:
        """Have the device with others; the seconds that this took. `request`: what progress is told of."""
        return float(self._ask(request))

    def give_up(self) -> list[tuple[float, float]]:
        """Let others have it; since when and until when the builder was stopped since it was taken."""
        return [(since, until) for since, until in self._ask("give up")]

    def _ask(self, what: Any) -> Any:
        """Say it, and wait for the answer."""
        self._process = self._process or self._started()
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        with contextlib.suppress(BrokenPipeError):
            asked.write(f"{json.dumps(what)}\n")
            asked.flush()
        if not (line := answered.readline()):
            # The kernel's signal is on its way, if it sends one.
            os.kill(os.getpid(), signal.SIGKILL)
        return json.loads(line)

    def _started(self) -> subprocess.Popen[str]:
        """A guard, whose end is the end of this process, too. Raises OSError."""
        held, let_go = os.pipe()
        descriptors = (let_go,) if self._answers_fd is None else (let_go, self._answers_fd)
        processes = str(os.getpid()), str(os.getppid())
        command = [sys.executable, "-m", GUARD, str(self._device), *processes, *map(str, descriptors[1:])]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors, text=True
            )
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(let_go)
        # A kernel that cannot leaves a build that is stopped for ever to whoever waits for it (processes/child.py).
        with contextlib.suppress(OSError):
            _end_when_closed(held)
        return process


def _end_when_closed(pipe: int) -> None:
    """Let the kernel kill this process when nobody has the pipe's other end any more, even while it is stopped (Linux).

    Nothing is ever written to it.
    """
    if sys.platform.startswith("linux"):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([pipe], [], [], 0)[0]:
            # It ended before that.
            os.kill(os.getpid(), signal.SIGKILL)


class _Builder:
    """The process that is guarded, as the guard stops it."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Stop it; returns when none of its threads runs any more. Raises TimeoutError if one does for long."""
        self._stopped_at = time.monotonic()
        os.kill(self._process, signal.SIGSTOP)
        while not self._is_stopped():
            if time.monotonic() - self._stopped_at > STOPPED_WITHIN_SECONDS:
                raise TimeoutError("a thread of the builder does not stop")
            time.sleep(0.001)

    def go_on(self) -> list[tuple[float, float]]:
        """Let it, if it was stopped; since when and until when it was."""
        stopped_at, self._stopped_at = self._stopped_at, None
        if stopped_at is None:
            return []
        until = time.monotonic()
        os.kill(self._process, signal.SIGCONT)
        return [(stopped_at, until)]

    def _is_stopped(self) -> bool:
        states: list[str] = []
        for stat in Path(f"/proc/{self._process}/task").glob("*/stat"):
            # A thread may end meanwhile.
            with contextlib.suppress(OSError):
                states.append(stat_fields(stat)[0])
        return set(states) == {"T"}


def guard(device: Path, process: int, told: Callable[[Any, JsonObject], None], worker: int) -> None:
    """Have the device's turn for a builder whenever it asks for it, until it ends.

    `process`: the builder, which is this one's parent; `told`: tells progress of a request; `worker`: the builder's
    parent.
    """
    builder, request = _Builder(process), None

    def tell_waiting() -> None:
        told(request, waiting_for(device, worker))

    def tell_waited(seconds: float) -> float:
        if seconds:
            told(request, {"waited_seconds": seconds})
        return seconds

    while line := sys.stdin.readline():
        request = json.loads(line)
        # One for each build: it stands behind others only if it has given way itself, and its files are those of now.
        with Turn(device, tell_waiting, synchronize=builder.stop) as turn:
            _answer(tell_waited(turn.take()))
            stops: list[tuple[float, float]] = []
            look_seconds = LOOK_SECONDS
            while not select.select([sys.stdin], [], [], look_seconds)[0]:
                look_seconds = LOOK_SECONDS
                try:
                    tell_waited(turn.give_way())
                except TimeoutError:
                    # It keeps the device now, and builds for as long as it has been held up before it is asked again.
                    look_seconds = STOPPED_WITHIN_SECONDS
                finally:
                    stops += builder.go_on()
            sys.stdin.readline()
        _answer(stops)
    # The input may end before the builder does, which must do so by itself.
    while os.getppid() == process:
        time.sleep(LOOK_SECONDS)


def _answer(what: float | list[tuple[float, float]]) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def main() -> None:
    device, process, worker, *descriptors = sys.argv[1:]

    def told(request: Any, values: JsonObject) -> None:
        for descriptor in descriptors:
            os.write(int(descriptor), as_line(progress_message(request, values)))

    end_with_parent()
    guard(Path(device), int(process), told, int(worker))


if __name__ == "__main__":
    main()
