"""A build that is stopped while others need the device alone: real processes, and signals that the kernel sends."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from workers.engine.turns.arbitration import DEVICE, Turn, alone, make_files
from workers.engine.turns.pausing import Guards, PausableTurn
from workers.processes.child import ROOT

BUILDER = """
import json, math, os, sys, threading, time
from workers.engine.turns.pausing import Guards, PausableTurn
from workers.engine.protocol import RequestProgress

def say(word):
    os.write(1, f"{word}\\n".encode())

guards, progress = Guards(), RequestProgress(7, os.dup(1), lambda message: None)
while sys.stdin.readline():
    done = threading.Event()
    threading.Thread(target=lambda done: (sys.stdin.readline(), done.set()), args=(done,), daemon=True).start()
    with PausableTurn(guards, {"turns": sys.argv[1]}, progress) as turn:
        turn.give_way()
        began_at = time.monotonic()
        while not done.is_set():
            say("builds")
            done.wait(0.01)
    say(f"waited {turn.waited_seconds_until(began_at)} {turn.waited_seconds_until(math.inf)}")
"""


class Builder:
    """A process that builds when it is told to, and says so all the time, until it is told to end that."""

    def __init__(self, device: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(device)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )

    def hear(self, word: str) -> str:
        """Listen until it says this, or something that begins so."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().decode().strip():
            if line.startswith(word):
                return line
        raise AssertionError(f"it ended without {word}")

    def stands_still(self) -> bool:
        """Whether nothing more comes from it once it has said that it waits."""
        self.hear('{"id":7,"progress":{"waiting":true')
        return self.is_silent

    @property
    def is_silent(self) -> bool:
        """Nothing more comes from it once what it has said is heard."""
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        try:
            while self.process.stdout.read():
                pass
        finally:
            os.set_blocking(self.process.stdout.fileno(), True)
        return not select.select([self.process.stdout], [], [], 0.1)[0]

    def begin_or_end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    @property
    def guard(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    with ExitStack() as stack:
        builder = Builder(tmp_path / "GPU-1")
        stack.enter_context(builder.process)
        stack.callback(
            lambda: os.killpg(builder.process.pid, signal.SIGKILL) if builder.process.poll() is None else None
        )
        builder.begin_or_end()
        builder.hear("builds")
        yield builder


def test_a_build_stands_still_while_a_measurement_has_the_device(builder: Builder, tmp_path: Path) -> None:
    with alone(tmp_path / "GPU-1", lambda: None):
        assert builder.stands_still()
    told = json.loads(builder.hear('{"id":7,"progress":{"waited_seconds"'))
    builder.hear("builds")
    builder.begin_or_end()
    before, waited_seconds = map(float, builder.hear("waited").split()[1:])
    assert before == 0.0, "it was stopped later"
    assert waited_seconds >= told["progress"]["waited_seconds"] > 0.1
    assert builder.process.stdin is not None
    builder.process.stdin.close()
    assert builder.process.wait() == 0


def test_a_build_says_that_it_waits_from_when_it_is_stopped(builder: Builder, tmp_path: Path) -> None:
    with alone(tmp_path / "GPU-1", lambda: None):
        holder = json.loads(builder.hear('{"id":7'))["progress"].pop("holder", None)
    assert holder in (None, os.getppid()), "another worker's process, which this one's parent is"


def test_a_build_goes_on_beside_what_shares_the_device(builder: Builder, tmp_path: Path) -> None:
    with Turn(tmp_path / "GPU-1", lambda: None) as training:
        training.give_way()
        assert not builder.is_silent
    builder.begin_or_end()
    assert builder.hear("waited")


def test_a_measurement_that_is_killed_lets_the_build_go_on(builder: Builder, tmp_path: Path) -> None:
    measuring = (
        "import sys\nfrom pathlib import Path\nfrom workers.engine.turns.arbitration import alone\n"
        "with alone(Path(sys.argv[1]), lambda: None):\n    print(flush=True)\n    sys.stdin.readline()"
    )
    command = [sys.executable, "-c", measuring, str(tmp_path / "GPU-1")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as measurement:
        assert measurement.stdout is not None
        measurement.stdout.readline()
        assert builder.stands_still()
        measurement.kill()
    builder.hear("builds")


def test_a_builder_that_is_killed_while_it_stands_still_leaves_the_device(builder: Builder, tmp_path: Path) -> None:
    with alone(tmp_path / "GPU-1", lambda: None):
        assert builder.stands_still()
        builder.process.kill()
        builder.process.wait()
    with alone(tmp_path / "GPU-1", lambda: None):
        pass  # which would wait for ever if the guard still had it


def test_a_build_ends_whose_guard_is_killed(builder: Builder) -> None:
    """It would go on beside a measurement."""
    os.kill(builder.guard, signal.SIGKILL)
    assert builder.process.wait() == -signal.SIGKILL


def test_a_build_that_stands_still_ends_whose_guard_is_killed(builder: Builder, tmp_path: Path) -> None:
    """Nobody would let it go on."""
    with alone(tmp_path / "GPU-1", lambda: None):
        assert builder.stands_still()
        os.kill(builder.guard, signal.SIGKILL)
        assert builder.process.wait() == -signal.SIGKILL


def test_a_build_stands_not_behind_others_because_an_earlier_one_gave_way(builder: Builder, tmp_path: Path) -> None:
    with alone(tmp_path / "GPU-1", lambda: None):
        assert builder.stands_still()
    builder.hear("builds")
    builder.begin_or_end()
    builder.hear("waited")
    waits = (
        "import sys\nfrom pathlib import Path\nfrom workers.engine.turns.arbitration import alone\n"
        "with alone(Path(sys.argv[1]), lambda: print(flush=True)):\n    pass"
    )
    with Turn(tmp_path / "GPU-1", lambda: None) as training:
        training.take()
        command = [sys.executable, "-c", waits, str(tmp_path / "GPU-1")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as measurement:
            assert measurement.stdout is not None
            measurement.stdout.readline()
            builder.begin_or_end()
            heard = builder.hear("")
            training.give_up()
            builder.begin_or_end()
    assert heard == "builds", "before what came to have the device alone"


def test_a_build_that_can_have_no_guard_keeps_the_device_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    make_files(tmp_path / "GPU-1")
    with (tmp_path / f"GPU-1{DEVICE}").open("rb") as device:
        with PausableTurn(Guards(), {"turns": str(tmp_path / "GPU-1")}, lambda told: None) as turn:
            turn.give_way()
            turn.give_way()
            with pytest.raises(BlockingIOError):
                fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
