"""What a worker's slots do, what they wait for and how busy its device is, as a line of its output now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from layersweep.display import units
from workers.devices.time_shares import DeviceTime
from workers.engine.background import in_background
from workers.waits import Cause

LOGGED_EVERY_SECONDS = 60.0

logger = logging.getLogger("layersweep.worker")

_BEGINS = ("begins", "begin")
_PHASES: Mapping[str, tuple[str, str]] = {
    "check": ("checks", "check"),
    "build": ("builds", "build"),
    "measure": ("measures", "measure"),
    "train": ("trains", "train"),
    "quantize": ("quantizes", "quantize"),
    "rebuild": ("builds again", "build again"),
    "remeasure": ("measures again", "measure again"),
    "evaluate": ("evaluates", "evaluate"),
    "finish": ("finishes", "finish"),
}
"""What one slot does in a phase, and what several do."""

_WAITS: Mapping[Cause, str] = {
    "measurement_turn": "a measurement turn",
    "build_turn": "a build turn",
    "training_turn": "a training turn",
    "evaluation_turn": "an evaluation turn",
    "memory": "memory",
}


@dataclass(frozen=True, slots=True)
class SlotActivity:
    """What a busy slot does now."""

    phase: str | None
    """None before its attempt has said the first one."""
    waits_for: Cause | None = None


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """What a worker does now, and what came together since it began."""

    slots: int
    busy: Sequence[SlotActivity]
    waited_seconds: Mapping[Cause, float]
    """Of all its attempts, by cause; those that wait now are counted until now."""
    device_seconds: Sequence[float]
    """For how long each device was in use: an attempt was at work that did not wait."""


class RunningAttempt(Protocol):
    """An attempt that a slot executes; asked by another thread."""

    @property
    def activity(self) -> SlotActivity: ...

    def waited_seconds(self) -> Mapping[Cause, float]:
        """For how long it has waited until now, by cause."""
        ...


class RunningAttempts:
    """The attempts that a worker's slots execute now, and what those waited that have ended. Thread-safe."""

    def __init__(self, slots: int, devices: Collection[DeviceTime]) -> None:
        self._slots = slots
        self._devices = devices
        self._lock = threading.Lock()
        self._running: list[RunningAttempt] = []
        self._waited: dict[Cause, float] = {}
        """In seconds. Of attempts that have ended."""

    @contextmanager
    def running(self, attempt: RunningAttempt) -> Generator[None]:
        """A slot executes the attempt for the time of the context."""
        with self._lock:
            self._running.append(attempt)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(attempt)
                _add(self._waited, attempt.waited_seconds())

    def observe(self) -> WorkerActivity:
        """What the worker does now."""
        with self._lock:
            waited = dict(self._waited)
            for attempt in self._running:
                _add(waited, attempt.waited_seconds())
            busy = [attempt.activity for attempt in self._running]
        return WorkerActivity(self._slots, busy, waited, [device.used_seconds for device in self._devices])


class ActivityReport:
    """Makes the lines. Used by one thread."""

    def __init__(self, observe: Callable[[], WorkerActivity], clock: Callable[[], float]) -> None:
        self._observe = observe
        self._clock = clock
        self._before = observe()
        self._said_at = clock()
        self._is_idle = False

    def next_line(self) -> str | None:
        """What there is to say since the last call; None for a worker that is still idle."""
        now, before, activity = self._clock(), self._before, self._observe()
        seconds = max(now - self._said_at, 1e-3)
        self._before, self._said_at = activity, now
        used = sum(activity.device_seconds) - sum(before.device_seconds)
        was_idle, self._is_idle = self._is_idle, not activity.busy and used <= 0
        if self._is_idle:
            return None if was_idle else f"idle: {_free(activity.slots)}"
        devices = len(activity.device_seconds)
        share = min(1.0, max(0.0, used / (seconds * devices)))
        device = "the device" if devices == 1 else f"{devices} devices"
        line = f"{_doings(activity)}; this worker used {device} for {100 * share:.0f} % of the last {_period(seconds)}"
        waits = _waits(activity.waited_seconds, before.waited_seconds)
        return f"{line}; waits: {waits}" if waits else line


@contextmanager
def logged(observe: Callable[[], WorkerActivity], every_seconds: float) -> Generator[None]:
    """Log a line every so often while the context is open; of an idle worker one."""
    report = ActivityReport(observe, time.monotonic)

    def log_lines(is_over: threading.Event) -> None:
        while not is_over.wait(every_seconds):
            if line := report.next_line():
                logger.info("%s", line)

    with in_background(log_lines, "says what the slots do"):
        yield


def _add(seconds: dict[Cause, float], more: Mapping[Cause, float]) -> None:
    for cause, waited in more.items():
        seconds[cause] = seconds.get(cause, 0.0) + waited


def _free(slots: int) -> str:
    return "the slot is free" if slots == 1 else f"all {slots} slots are free"


def _doings(activity: WorkerActivity) -> str:
    """`4 of 8 slots train, 2 wait for a measurement turn, 1 builds, 1 is free`"""
    if not activity.busy:
        return _free(activity.slots)
    counted = Counter(map(_doing, activity.busy))
    parts = [f"{count} {_verb(forms, count)}" for forms, count in sorted(counted.items(), key=lambda each: -each[1])]
    if free := activity.slots - len(activity.busy):
        parts.append(f"{free} {'is' if free == 1 else 'are'} free")
    number, _, rest = parts[0].partition(" ")
    return ", ".join([f"{number} of {units.plural(activity.slots, 'slot')} {rest}", *parts[1:]])


def _doing(slot: SlotActivity) -> tuple[str, str]:
    if slot.waits_for is not None:
        what = _WAITS[slot.waits_for]
        return f"waits for {what}", f"wait for {what}"
    return _BEGINS if slot.phase is None else _PHASES.get(slot.phase, _BEGINS)


def _verb(forms: tuple[str, str], count: int) -> str:
    return forms[0] if count == 1 else forms[1]


def _period(seconds: float) -> str:
    return "minute" if round(seconds) == 60 else units.duration(seconds)


def _waits(seconds: Mapping[Cause, float], before: Mapping[Cause, float]) -> str:
    """`measurement 12 s, build 30 s`: those of half a second or more."""
    grown = {cause: seconds.get(cause, 0.0) - before.get(cause, 0.0) for cause in _WAITS}
    return ", ".join(
        f"{cause.removesuffix('_turn')} {units.duration(grew)}" for cause, grew in grown.items() if grew >= 0.5
    )
