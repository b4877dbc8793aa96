"""Who is let in beside whom on a device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from layers.configuration import Configuration, TrialConfiguration
from tests.workers.scripted_service import configuration
from workers.devices.memory import DeviceMemory, MemoryShare
from workers.devices.memory_estimate import PROCESS_BYTES, estimated_bytes
from workers.interruption import DrainedError, Interruption

GIB = 1 << 30


class Attempts:
    """Attempts in threads of their own, which stay inside until they are let go."""

    def __init__(self, memory: DeviceMemory) -> None:
        self.memory = memory
        self.entered: list[str] = []
        self.changed = threading.Condition()

    def begin(self, name: str, need_bytes: float, *, alone: bool = False) -> tuple[MemoryShare, Callable[[], None]]:
        """Ask for room; the share, and what lets the attempt go."""
        share = self.memory.share(need_bytes, Interruption())
        share.is_alone = alone
        return self.begin_share(name, share)

    def begin_share(self, name: str, share: MemoryShare) -> tuple[MemoryShare, Callable[[], None]]:
        """The same with a share that is there."""
        over = threading.Event()
        asked = threading.Event()

        def attempt() -> None:
            def note() -> None:
                with self.changed:
                    self.entered.append(name)
                    self.changed.notify_all()
                asked.set()

            with share.held(asked.set, note):
                over.wait(60)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        assert asked.wait(60), "it neither waits nor is inside"

        def end() -> None:
            over.set()
            thread.join(60)

        return share, end

    def wait_for(self, *names: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.entered == list(names), 60), self.entered


@pytest.fixture
def attempts() -> Attempts:
    return Attempts(DeviceMemory(10 * GIB))


def test_who_does_not_fit_waits_and_nobody_overtakes_him(attempts: Attempts) -> None:
    _, end_first = attempts.begin("first", 5 * GIB)
    _, end_large = attempts.begin("large", 6 * GIB)
    _, end_small = attempts.begin("small", 1 * GIB)
    attempts.wait_for("first")
    end_first()
    attempts.wait_for("first", "large", "small")
    end_large()
    end_small()


def test_who_is_larger_than_the_device_is_let_in_alone_and_fails_by_himself(attempts: Attempts) -> None:
    _, end = attempts.begin("huge", 99 * GIB)
    attempts.wait_for("huge")
    end()


def test_who_is_to_be_alone_has_no_neighbours(attempts: Attempts) -> None:
    first, end_first = attempts.begin("first", 1 * GIB)
    alone, end_alone = attempts.begin("alone", 1 * GIB, alone=True)
    _, end_last = attempts.begin("last", 1 * GIB)
    attempts.wait_for("first")
    end_first()
    attempts.wait_for("first", "alone")
    assert (first.has_had_neighbours, alone.has_had_neighbours) == (False, False)
    end_alone()
    attempts.wait_for("first", "alone", "last")
    end_last()


def test_neighbours_are_known_to_both(attempts: Attempts) -> None:
    first, end_first = attempts.begin("first", 1 * GIB)
    second, end_second = attempts.begin("second", 1 * GIB)
    attempts.wait_for("first", "second")
    assert (first.has_had_neighbours, second.has_had_neighbours) == (True, True)
    end_first()
    end_second()


def test_what_was_seen_corrects_the_next_estimates(attempts: Attempts) -> None:
    first, end_first = attempts.begin("first", 3 * GIB)
    first.learn(6 * GIB)
    _, end_second = attempts.begin("second", 3 * GIB)
    attempts.wait_for("first")
    end_first()
    attempts.wait_for("first", "second")
    end_second()


def test_a_device_that_says_nothing_of_its_memory_lets_everybody_in() -> None:
    attempts = Attempts(DeviceMemory(0))
    ends = [attempts.begin(name, 99 * GIB)[1] for name in ("first", "second")]
    attempts.wait_for("first", "second")
    for end in ends:
        end()


def test_a_wait_ends_with_its_interruption(attempts: Attempts) -> None:
    _, end = attempts.begin("first", 9 * GIB)
    interruption = Interruption()
    share = attempts.memory.share(9 * GIB, interruption)
    interruption.set(DrainedError("the worker was asked to stop"))
    with pytest.raises(DrainedError), share.held(lambda: None, lambda: None):
        pass
    end()


def test_an_estimate_grows_with_the_model_and_its_batch() -> None:
    def of(**sections: dict[str, Any]) -> float:
        return estimated_bytes(TrialConfiguration.of(configuration(**sections)))

    small = of()
    assert PROCESS_BYTES < small < 2 * PROCESS_BYTES
    assert of(model={"hidden_size": 1024}) > small
    assert of(training={"batch_size": 4096}) > small + GIB / 2
    read = {"batch_size": 4096, "sequence_length": 1024}
    text = {**read, "mode": "generate", "prompt_tokens": 1000, "new_tokens": 24}
    assert of(inference=text) == of(inference=read) + GIB / 2, "keys and values"
    one = {**text, "batch_size": 1}
    shapes = [{"name": "one", **one}, {"name": "many", **text}]
    at_shapes = TrialConfiguration.of(Configuration(**configuration(inference=one), shapes=shapes))
    assert estimated_bytes(at_shapes) == of(inference=text)


def test_who_shares_a_model_has_every_device_in_his_turn(attempts: Attempts) -> None:
    memories = (attempts.memory, DeviceMemory(10 * GIB))
    _, end_one = attempts.begin("on one", GIB)
    _, end_two = attempts.begin_share("on two", memories[1].share(GIB, Interruption()))
    _, end_shared = attempts.begin_share("shared", MemoryShare.alone_on(memories, GIB, Interruption()))
    _, end_later = attempts.begin("later on one", GIB)
    attempts.wait_for("on one", "on two")
    end_one()
    attempts.wait_for("on one", "on two")
    end_two()
    attempts.wait_for("on one", "on two", "shared")
    end_shared()
    attempts.wait_for("on one", "on two", "shared", "later on one")
    end_later()


def test_who_gives_up_while_he_waits_for_a_second_device_leaves_the_first(attempts: Attempts) -> None:
    memories = (attempts.memory, DeviceMemory(10 * GIB))
    _, end_two = attempts.begin_share("on two", memories[1].share(GIB, Interruption()))
    attempts.wait_for("on two")
    interruption = Interruption()
    interruption.set(DrainedError("stopped"))
    with pytest.raises(DrainedError), MemoryShare.alone_on(memories, GIB, interruption).held(int, int):
        pytest.fail("it waits")
    _, end_one = attempts.begin("on one", GIB)
    attempts.wait_for("on two", "on one")
    end_one()
    end_two()
