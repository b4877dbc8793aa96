"""Measurements and trainings of several processes take turns on one device. What happens is heard, not waited for."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from workers.processes.child import ROOT

SAY = """
import sys
from pathlib import Path
from workers.engine.arbitration import Steps, measuring

device = Path(sys.argv[1])
def say(word):
    print(word, flush=True)
"""

MEASUREMENT = f"""{SAY}
with measuring(device, on_wait=lambda: say("waits")):
    say("measures")
    sys.stdin.readline()
"""

TRAINING = f"""{SAY}
with Steps(device, on_wait=lambda: say("waits"), settle=lambda: say("settles")) as steps:
    for _ in sys.stdin:
        waited = steps.yield_to_measurement()
        say("steps after a wait" if waited else "steps")
"""


class Actor:
    """A process that says what it does, and goes on when it is told to."""

    def __init__(self, program: str, device: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(device)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            bufsize=0,
        )

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def hear(self, word: str) -> None:
        """Listen until it says this; who waits may say so more than once."""
        assert self.process.stdout is not None
        while (said := self.process.stdout.readline().decode().strip()) != word:
            assert said == "waits", f"{said!r} instead of {word!r}"

    @property
    def has_moved(self) -> bool:
        """It has said something new, other than that it waits."""
        assert self.process.stdout is not None
        while select.select([self.process.stdout], [], [], 0)[0]:
            if self.process.stdout.readline() != b"waits\n":
                return True
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Actor]]:
    with ExitStack() as stack:

        def start(program: str) -> Actor:
            actor = Actor(program, tmp_path / "GPU-1")
            stack.enter_context(actor.process)
            stack.callback(actor.process.kill)
            return actor

        yield start


def test_a_measurement_begins_after_the_step_and_the_next_step_after_it(start: Callable[[str], Actor]) -> None:
    training = start(TRAINING)
    training.go_on()
    training.hear("steps")
    measurement = start(MEASUREMENT)
    measurement.hear("waits")
    assert not measurement.has_moved, "the training is in a step"
    training.go_on()
    training.hear("settles")
    training.hear("waits")
    measurement.hear("measures")
    assert not training.has_moved
    measurement.go_on()
    training.hear("steps after a wait")
    training.go_on()
    training.hear("steps")


def test_measurements_queue_and_a_killed_one_lets_the_next_begin(start: Callable[[str], Actor]) -> None:
    first = start(MEASUREMENT)
    first.hear("measures")
    second = start(MEASUREMENT)
    second.hear("waits")
    assert not second.has_moved
    first.process.kill()
    second.hear("measures")


@pytest.mark.parametrize("killed", ["measurement", "training"])
def test_nobody_waits_for_the_dead(start: Callable[[str], Actor], killed: str) -> None:
    training = start(TRAINING)
    training.go_on()
    training.hear("steps")
    measurement = start(MEASUREMENT)
    measurement.hear("waits")
    if killed == "training":
        training.process.kill()
        measurement.hear("measures")
    else:
        training.go_on()
        training.hear("settles")
        training.hear("waits")
        measurement.hear("measures")
        measurement.process.kill()
        training.hear("steps after a wait")


def test_a_training_that_waits_makes_a_step_before_any_measurement_that_comes_later(
    start: Callable[[str], Actor],
) -> None:
    first = start(MEASUREMENT)
    first.hear("measures")
    trainings = [start(TRAINING), start(TRAINING)]
    for training in trainings:
        training.go_on()
        training.hear("waits")
    others = [start(MEASUREMENT), start(MEASUREMENT)]
    for measurement in others:
        measurement.hear("waits")
    first.go_on()
    for training in trainings:
        training.hear("steps after a wait")
    assert not any(measurement.has_moved for measurement in others), "the trainings are in the steps that are theirs"
    for actor in (*trainings, *others):
        actor.end()
    for measurement in others:
        measurement.hear("measures")
