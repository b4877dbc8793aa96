"""A build's turn on the device, in which the build is stopped while others have the device.

A library's build is one long call that never gives way by itself. So a guard, a small process of the builder's own,
has the turn for it. Where somebody waits, the guard stops the builder (SIGSTOP), which from then on gives the device
nothing to do and takes no memory of it. It gives way, and lets the builder go on (SIGCONT) when it is its turn again:

    builder      ── builds ──▶ stopped ──────────────────────────▶ builds ──▶ end
    guard        has the turn ▶ stops it, gives way, waits, has it ▶ lets it go on

Only for builds that compare no times of kernels: a stop would be in them. The guard tells the waits of the builder's
request, which cannot while it is stopped. It ends with its builder. If it is killed while the builder is stopped, that
is ended by whoever waits for it, as a build that hangs.

    python -m workers.engine.turns.pausing DEVICE WORKER [ANSWERS_FD]     the guard of the process that starts it
"""

from __future__ import annotations

import contextlib
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
from ..protocol import JsonObject, Progress, Request, RequestError, RequestProgress, as_line, progress_message
from .arbitration import Turn
from .request_turn import GUARD, device_of, waiting_for

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
        """Raises RequestError("invalid") where `turns` is no path."""
        self.stopped_seconds = 0.0
        """Known at its end."""
        device = device_of(request)
        self._guard = None if device is None else guards.of(device, progress)
        self._progress = progress
        self._is_taken = False

    def __enter__(self) -> PausableTurn:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._guard is not None and self._is_taken:
            self.stopped_seconds = self._guard.give_up()

    def give_way(self) -> None:
        """Have the device with others, after those who wait for it; from then on the guard gives way.

        Raises RequestError("internal") where it is gone.
        """
        if self._guard is not None and not self._is_taken:
            self._guard.take(self._progress.identity if isinstance(self._progress, RequestProgress) else None)
            self._is_taken = True


class Guards:
    """Those of a builder: one for each device that its requests name."""

    def __init__(self) -> None:
        self._guards: dict[Path, _Guard] = {}

    def of(self, device: Path, progress: Progress) -> _Guard:
        """`progress`: of the request. It is told by who answers all requests of this process."""
        answers_fd = progress.descriptor if isinstance(progress, RequestProgress) else None
        return self._guards.setdefault(device, _Guard(device, answers_fd))


class _Guard:
    """The guard as its builder sees it; it is started when it is first needed.

    Raises RequestError("internal") where it is gone.
    """

    def __init__(self, device: Path, answers_fd: int | None) -> None:
        self._device = device
        self._answers_fd = answers_fd
        self._process: subprocess.Popen[str] | None = None

    def take(self, request: Any) -> None:
        """Have the device with others. `request`: what progress is told of."""
        self._ask(request)

    def give_up(self) -> float:
        """Let others have it; for how many seconds the builder was stopped since it was taken."""
        return float(self._ask("give up"))

    def _ask(self, what: Any) -> Any:
        """Say it, and wait for the answer."""
        if self._process is None:
            descriptors = () if self._answers_fd is None else (self._answers_fd,)
            self._process = subprocess.Popen(
                [sys.executable, "-m", GUARD, str(self._device), str(os.getppid()), *map(str, descriptors)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=descriptors,
                text=True,
            )
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        line = ""
        with contextlib.suppress(OSError):
            asked.write(f"{json.dumps(what)}\n")
            asked.flush()
            line = answered.readline()
        if not line:
            self._process.kill()
            self._process.wait()
            self._process = None
            raise RequestError("internal", "the process that had this build's turn on the device has ended")
        return json.loads(line)


class _Builder:
    """The process that is guarded, as the guard stops it."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Stop it; returns when none of its threads runs any more. Raises TimeoutError where one does for long."""
        self._stopped_at = time.monotonic()
        os.kill(self._process, signal.SIGSTOP)
        while not self._is_stopped():
            if time.monotonic() - self._stopped_at > STOPPED_WITHIN_SECONDS:
                raise TimeoutError
            time.sleep(0.001)

    def go_on(self) -> float:
        """Let it, if it was stopped; for how many seconds it was."""
        stopped_at, self._stopped_at = self._stopped_at, None
        if stopped_at is None:
            return 0.0
        os.kill(self._process, signal.SIGCONT)
        return time.monotonic() - stopped_at

    def _is_stopped(self) -> bool:
        states: list[str] = []
        for stat in Path(f"/proc/{self._process}/task").glob("*/stat"):
            # A thread may end meanwhile. Its name, in brackets, may hold any character.
            with contextlib.suppress(OSError):
                states.append(stat.read_text().rpartition(")")[2].split()[0])
        return set(states) == {"T"}


def guard(device: Path, process: int, told: Callable[[Any, JsonObject], None], worker: int) -> None:
    """Have the device's turn for a builder whenever it asks for it, until the input ends.

    `told`: tells progress of a request; `worker`: the builder's parent.
    """
    builder, request = _Builder(process), None

    def tell_waiting() -> None:
        told(request, waiting_for(device, worker))

    def tell_waited(seconds: float) -> float:
        if seconds:
            told(request, {"waited_seconds": seconds})
        return seconds

    with Turn(device, tell_waiting, synchronize=builder.stop) as turn:
        while line := sys.stdin.readline():
            request = json.loads(line)
            tell_waited(turn.take())
            _answer(None)
            stopped_seconds = 0.0
            while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
                try:
                    # One that cannot be stopped now keeps the device, and is asked again.
                    with contextlib.suppress(TimeoutError):
                        tell_waited(turn.give_way())
                finally:
                    stopped_seconds += builder.go_on()
            sys.stdin.readline()
            turn.give_up()
            _answer(stopped_seconds)


def _answer(what: float | None) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def main() -> None:
    device, worker, *descriptors = sys.argv[1:]

    def told(request: Any, values: JsonObject) -> None:
        for descriptor in descriptors:
            os.write(int(descriptor), as_line(progress_message(request, values)))

    end_with_parent()
    guard(Path(device), os.getppid(), told, int(worker))


if __name__ == "__main__":
    main()
