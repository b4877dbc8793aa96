"""Several processes take turns on one device. What happens is heard, not waited for."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from workers.engine.turns import arbitration
from workers.engine.turns.arbitration import Turn
from workers.engine.turns.request_turn import holder_elsewhere
from workers.processes.child import ROOT

SAY = """
import sys
from pathlib import Path
from workers.engine.turns.arbitration import Turn, alone

device = Path(sys.argv[1])
def say(word):
    print(word, flush=True)
"""

MEASUREMENT = f"""{SAY}
with alone(device, on_wait=lambda: say("waits")):
    say("measures")
    sys.stdin.readline()
"""

TRAINING = f"""{SAY}
with Turn(device, on_wait=lambda: say("waits"), synchronize=lambda: say("synchronizes"), kept_seconds=0) as turn:
    for _ in sys.stdin:
        waited = turn.give_way()
        say("steps after a wait" if waited else "steps")
"""

KEEPING_TRAINING = TRAINING.replace("kept_seconds=0", "kept_seconds=1e6")
"""It keeps the device for long when it has waited."""

LONG_PRECEDENCE = "from workers.engine.turns import arbitration\narbitration.PRECEDENCE_SECONDS = 1e6\nwith"
"""Instead of `with`: those that come to share the device go first for so long, however slow this machine is."""

TIMED_TRAINING = TRAINING.replace("on_wait", "alone=True, on_wait")
"""Its budget is in seconds."""

BUILD = MEASUREMENT.replace("measures", "builds")


SHARED_BUILD = f"""{SAY}
with Turn(device, on_wait=lambda: say("waits"), gives_way=False) as turn:
    turn.give_way()
    say("builds")
    sys.stdin.readline()
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


def stepping(start: Callable[[str], Actor], program: str = TRAINING) -> Actor:
    """A training that is in its first step."""
    training = start(program)
    training.go_on()
    training.hear("steps")
    return training


def yields(training: Actor) -> None:
    """The step of a training is over, and it gives way."""
    training.go_on()
    training.hear("synchronizes")
    training.hear("waits")


def test_a_measurement_begins_after_the_step_and_the_next_step_after_it(start: Callable[[str], Actor]) -> None:
    training = stepping(start)
    measurement = start(MEASUREMENT)
    measurement.hear("waits")
    assert not measurement.has_moved, "the training is in a step"
    yields(training)
    measurement.hear("measures")
    assert not training.has_moved
    measurement.go_on()
    training.hear("steps after a wait")
    training.go_on()
    training.hear("steps")


def test_trainings_step_beside_one_another(start: Callable[[str], Actor]) -> None:
    trainings = [stepping(start) for _ in range(3)]
    for training in trainings:
        training.go_on()
        training.hear("steps")


@pytest.mark.parametrize("other", [MEASUREMENT, BUILD, TRAINING, TIMED_TRAINING])
def test_a_training_whose_budget_is_in_seconds_steps_alone(start: Callable[[str], Actor], other: str) -> None:
    training = stepping(start, TIMED_TRAINING)
    waits = start(other)
    if other in (TRAINING, TIMED_TRAINING):
        waits.go_on()
    waits.hear("waits")
    assert not waits.has_moved
    training.go_on()
    training.hear("synchronizes")
    training.hear("waits")
    waits.hear({MEASUREMENT: "measures", BUILD: "builds"}.get(other, "steps after a wait"))


def test_measurements_and_builds_queue_and_a_killed_one_lets_the_next_begin(start: Callable[[str], Actor]) -> None:
    first = start(MEASUREMENT)
    first.hear("measures")
    second = start(BUILD)
    second.hear("waits")
    assert not second.has_moved
    first.process.kill()
    second.hear("builds")


@pytest.mark.parametrize("killed", ["measurement", "training", "the first in the queue", "the second in the queue"])
def test_nobody_waits_for_the_dead(start: Callable[[str], Actor], killed: str) -> None:
    training = stepping(start)
    measurement = start(MEASUREMENT)
    measurement.hear("waits")
    others: list[Actor] = []
    for program in (BUILD, MEASUREMENT):
        others.append(start(program))
        others[-1].hear("waits")
    match killed:
        case "training":
            training.process.kill()
            measurement.hear("measures")
        case "measurement":
            yields(training)
            measurement.hear("measures")
            measurement.process.kill()
            others[0].hear("builds")
        case "the first in the queue":
            measurement.process.kill()
            yields(training)
            others[0].hear("builds")
        case _:
            others[0].process.kill()
            yields(training)
            measurement.hear("measures")
            measurement.go_on()
            others[1].hear("measures")


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


def test_what_comes_to_share_the_device_goes_before_a_measurement_that_has_begun_to_wait(
    start: Callable[[str], Actor],
) -> None:
    first = start(MEASUREMENT)
    first.hear("measures")
    second = start(MEASUREMENT.replace("with", LONG_PRECEDENCE))
    second.hear("waits")
    shares = start(TRAINING.replace("with", LONG_PRECEDENCE))
    shares.go_on()
    shares.hear("waits")
    first.go_on()
    shares.hear("steps after a wait")
    assert not second.has_moved
    yields(shares)
    second.hear("measures")


def test_a_training_that_has_waited_keeps_the_device_for_a_while(start: Callable[[str], Actor]) -> None:
    measurement = start(MEASUREMENT)
    measurement.hear("measures")
    training = start(KEEPING_TRAINING)
    training.go_on()
    training.hear("waits")
    waits = start(MEASUREMENT)
    waits.hear("waits")
    measurement.go_on()
    training.hear("steps after a wait")
    training.go_on()
    training.hear("steps")
    assert not waits.has_moved


def test_who_waits_can_say_which_other_worker_has_the_device(start: Callable[[str], Actor], tmp_path: Path) -> None:
    device, worker = tmp_path / "GPU-1", os.getpid()
    measurement = start(MEASUREMENT)
    measurement.hear("measures")
    assert holder_elsewhere(device, worker=1) == worker, "the parent of the process that measures"
    assert holder_elsewhere(device, worker=worker) is None, "a worker's own slots are no others"
    measurement.end()
    measurement.process.wait()
    assert holder_elsewhere(device, worker=1) is None
    assert holder_elsewhere(tmp_path / "GPU-2", worker=1) is None


def test_who_has_waited_for_several_keeps_the_device_for_as_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now, held = 0.0, 0
    monkeypatch.setattr(arbitration.time, "monotonic", lambda: now)
    with Turn(tmp_path / "GPU-1", lambda: None) as training:
        monkeypatch.setattr(training, "_wait", lambda place: 4 * arbitration.MEASURED_SECONDS)
        monkeypatch.setattr(training, "_has_waiters", lambda: True)
        training.give_way()
        while training.give_way() == 0.0:
            now, held = now + arbitration.KEPT_SECONDS, held + 1
    assert held == 4


CONTENDER = f"""{SAY}
import os, time
kind, rounds, log = sys.argv[2], int(sys.argv[3]), os.open(sys.argv[4], os.O_WRONLY | os.O_APPEND)
def note(what):
    os.write(log, f"{{os.getpid()}} {{kind}} {{what}}\\n".encode())
sys.stdin.readline()
with Turn(device, on_wait=lambda: note("waits"), alone=kind == "alone", kept_seconds=0) as turn:
    for _ in range(rounds):
        if kind == "alone":
            turn.take()
        else:
            turn.give_way()
        note("begins")
        note("ends")
        if kind == "alone":
            turn.give_up()
"""


def test_a_training_steps_on_while_a_build_keeps_a_measurement_waiting(start: Callable[[str], Actor]) -> None:
    training = stepping(start)
    build = start(SHARED_BUILD)
    build.hear("builds")
    measurement = start(MEASUREMENT)
    measurement.hear("waits")
    training.go_on()
    training.hear("steps")
    build.end()
    build.process.wait()
    yields(training)
    measurement.hear("measures")


def test_nobody_starves_and_nothing_is_beside_what_is_alone_whatever_the_mix(tmp_path: Path) -> None:
    """By the order in which many processes note what they do, each line written in one piece."""
    log = tmp_path / "log"
    log.touch()
    kinds = ["alone", "shared"] * 5
    random.Random(0).shuffle(kinds)
    rounds = 60
    arguments = [sys.executable, "-c", CONTENDER, str(tmp_path / "GPU-1")]
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(
                subprocess.Popen([*arguments, kind, str(rounds), str(log)], stdin=subprocess.PIPE, cwd=ROOT)
            )
            for kind in kinds
        ]
        for contender in contenders:
            stack.callback(contender.kill)
        for contender in contenders:
            assert contender.stdin is not None
            contender.stdin.close()
        assert [contender.wait() for contender in contenders] == [0] * len(kinds)

    at_work: dict[str, str] = {}
    waiting: dict[str, tuple[str, set[str]]] = {}
    """Who waits: how it is to have the device, and who has begun since."""
    done: dict[str, int] = {}
    for line in log.read_text().splitlines():
        who, kind, what = line.split()
        if what == "waits":
            waiting.setdefault(who, (kind, set()))
        elif what == "begins":
            assert kind == "shared" or not at_work, f"{who} is alone beside {at_work}"
            assert "alone" not in at_work.values(), f"{who} begins beside {at_work}"
            at_work[who] = kind
            waiting.pop(who, None)
            for waiting_kind, begun in waiting.values():
                # Who shares it may have it, and not have noted that yet.
                if "alone" in (kind, waiting_kind):
                    assert who not in begun, f"{who} begins twice while somebody waits"
                    begun.add(who)
        elif what == "ends":
            del at_work[who]
            done[who] = done.get(who, 0) + 1
    assert sorted(done.values()) == [rounds] * len(kinds)
