"""A builder that several slots share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from workers.interruption import DrainedError, Interruption
from workers.processes.builder import Builder
from workers.processes.child import Child, ChildTimeoutError


@pytest.fixture
def builder() -> Iterator[Builder]:
    builder = Builder(lambda: Child([sys.executable, "-m", "tests.workers.processes.scripted_child"], name="build"))
    yield builder
    builder.kill()


class Hanging:
    """A request of another slot that hangs; it has the process from `begun` on."""

    def __init__(self, builder: Builder, interruption: Interruption, timeout_seconds: float | None = None) -> None:
        self.begun = threading.Event()
        self.failure: BaseException | None = None
        self._request = (builder, interruption, timeout_seconds)
        self._thread = threading.Thread(target=self._hang, daemon=True)
        self._thread.start()
        assert self.begun.wait(60)

    def _hang(self) -> None:
        builder, interruption, timeout_seconds = self._request
        try:
            builder.request(
                "hang",
                timeout_seconds=timeout_seconds,
                on_progress=lambda progress: self.begun.set(),
                interruption=interruption,
            )
        except (ChildTimeoutError, DrainedError) as failure:
            self.failure = failure

    def join(self) -> None:
        self._thread.join(60)


def say(builder: Builder, told: list[dict[str, Any]] | None = None, **options: Any) -> int:
    heard = [] if told is None else told
    return builder.request("say", timeout_seconds=60, on_progress=heard.append, **options)["pid"]


def test_the_process_is_kept_and_started_anew_when_it_is_not_to_be_trusted(builder: Builder) -> None:
    first = say(builder)
    assert say(builder) == first
    builder.discard()
    assert say(builder) != first


def test_a_request_that_hangs_is_ended_and_the_one_that_waits_gets_a_new_process(builder: Builder) -> None:
    first = say(builder)
    hanging = Hanging(builder, Interruption(), timeout_seconds=1)
    told: list[dict[str, Any]] = []
    assert say(builder, told) != first
    hanging.join()
    assert isinstance(hanging.failure, ChildTimeoutError)
    assert told[0] == {"waiting": True}
    assert told[1]["waited_seconds"] > 0


def test_who_waits_for_another_slot_s_request_can_be_interrupted_and_ends_nothing(builder: Builder) -> None:
    ends_hanging = Interruption()
    hanging = Hanging(builder, ends_hanging)
    interruption = Interruption()
    interruption.set(DrainedError("the worker was asked to stop"))
    with pytest.raises(DrainedError):
        say(builder, interruption=interruption)
    assert hanging.failure is None
    ends_hanging.set(DrainedError("enough"))
    hanging.join()
    assert isinstance(hanging.failure, DrainedError)


@pytest.fixture
def pair() -> Iterator[Builder]:
    argv = [sys.executable, "-m", "tests.workers.processes.scripted_child"]
    builder = Builder(lambda: Child(argv, name="build"), processes=2)
    yield builder
    builder.kill()


def test_a_second_process_answers_while_the_first_works(pair: Builder) -> None:
    first = say(pair)
    ends_hanging = Interruption()
    hanging = Hanging(pair, ends_hanging)
    told: list[dict[str, Any]] = []
    second = say(pair, told)
    assert second != first
    assert told == [], "nobody waited"
    assert say(pair) == second
    ends_hanging.set(DrainedError("the worker was asked to stop"))
    hanging.join()


def test_processes_that_warm_up_answer_afterwards_whatever_came_of_it(pair: Builder) -> None:
    pair.warm_up({"runtime": "none"}, Interruption())  # which this child does not know
    hanging = Hanging(pair, ends := Interruption())
    assert say(pair)
    ends.set(DrainedError("the worker was asked to stop"))
    hanging.join()
