"""What a worker says of its slots and its device, a line at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import pytest

from workers import activity
from workers.activity import ActivityReport, RunningAttempts, SlotActivity
from workers.devices.time_shares import DeviceTime
from workers.waits import Cause, Waits


class Attempt:
    """An attempt that does what a test says."""

    def __init__(self, phase: str | None, waits_for: Cause | None = None, **waited: float) -> None:
        self.activity = SlotActivity(phase, waits_for)
        self.waited = waited

    def waited_seconds(self) -> Mapping[Cause, float]:
        return self.waited  # type: ignore[return-value]


class Bench:
    """A worker of several slots whose time a test sets."""

    def __init__(self, slots: int, devices: int = 1) -> None:
        self.now = 0.0
        self.devices = [DeviceTime(lambda: self.now) for _ in range(devices)]
        self.attempts = RunningAttempts(slots, self.devices)
        self.report = ActivityReport(self.attempts.observe, lambda: self.now)

    def line_after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.report.next_line()


def test_a_line_says_what_each_slot_does_and_how_busy_the_device_was() -> None:
    bench = Bench(8)
    with (
        bench.attempts.running(Attempt("train")),
        bench.attempts.running(Attempt("train")),
        bench.attempts.running(Attempt("train")),
        bench.attempts.running(Attempt("measure", "measurement_turn", measurement_turn=12.0)),
        bench.attempts.running(Attempt("remeasure", "measurement_turn", build_turn=30.0)),
        bench.attempts.running(Attempt("build")),
        bench.attempts.running(Attempt(None, "memory")),
    ):
        share = bench.devices[0].share()
        bench.now = 37.8
        share.pause()
        assert bench.line_after(22.2) == (
            "3 of 8 slots train, 2 wait for a measurement turn, 1 builds, 1 waits for memory, 1 is free; "
            "this worker used the device for 63 % of the last minute; waits: measurement 12 s, build 30 s"
        )


def test_waits_are_those_since_the_last_line_also_of_attempts_that_have_ended() -> None:
    bench = Bench(1)
    attempt = Attempt("build", "build_turn", build_turn=20.0)
    with bench.attempts.running(attempt):
        bench.devices[0].share()
        assert str(bench.line_after(60)).endswith("waits: build 20 s")
        attempt.waited["build_turn"] = 25.0
    ended = bench.line_after(90)
    assert ended == "the slot is free; this worker used the device for 100 % of the last 1 min 30 s; waits: build 5 s"
    with bench.attempts.running(Attempt("train")):
        assert bench.line_after(60) == "1 of 1 slot trains; this worker used the device for 100 % of the last minute"


def test_an_idle_worker_says_so_once() -> None:
    bench = Bench(4)
    assert [bench.line_after(60) for _ in range(3)] == ["idle: all 4 slots are free", None, None]
    with bench.attempts.running(Attempt(None)):
        assert (
            bench.line_after(60)
            == "1 of 4 slots begins, 3 are free; this worker used the device for 0 % of the last minute"
        )
    assert [bench.line_after(60) for _ in range(2)] == ["idle: all 4 slots are free", None]


def test_the_use_of_several_devices_is_their_mean() -> None:
    bench = Bench(2, devices=2)
    with bench.attempts.running(Attempt("evaluate")), bench.attempts.running(Attempt("quantize")):
        bench.devices[0].share()
        assert bench.line_after(60) == (
            "1 of 2 slots evaluates, 1 quantizes; this worker used 2 devices for 50 % of the last minute"
        )


def test_a_wait_is_seen_while_it_lasts_and_takes_no_device() -> None:
    now = 0.0
    device = DeviceTime(lambda: now)
    share = device.share()
    waits = Waits("trial 1", share, lambda told: None)
    assert waits.cause is None
    with waits.waiting("build_turn"):
        now = 5.0
        assert waits.cause == "build_turn"
        assert list(waits.seconds_until_now()) == ["build_turn"]
        assert device.used_seconds == 0.0
    now = 7.0
    assert waits.cause is None
    assert device.used_seconds == 2.0


def test_lines_come_while_the_worker_works(caplog: pytest.LogCaptureFixture) -> None:
    said = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.set()

    heard = Heard()
    activity.logger.addHandler(heard)
    try:
        with caplog.at_level(logging.INFO), activity.logged(RunningAttempts(2, [DeviceTime()]).observe, 0.01):
            assert said.wait(60)
    finally:
        activity.logger.removeHandler(heard)
    assert caplog.messages == ["idle: all 2 slots are free"]
