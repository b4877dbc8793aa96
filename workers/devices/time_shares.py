"""A device's time, divided among the attempts that are at work on it: what each is charged as `device_seconds`; and how
much of it the device was busy."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Literal, TypedDict

from workers.engine import nvml
from workers.engine.background import in_background

WINDOW_SECONDS = 600.0
"""How far back it is looked how busy devices were."""

SAMPLED_EVERY_SECONDS = 5.0
"""The driver keeps what it counted for about twice as long."""


class DeviceTime:
    """Divides each moment evenly among the attempts that are at work then and do not wait.

    So the shares of all attempts sum to at most the time that has passed. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work: set[DeviceShare] = set()
        self._divided_until = clock()
        self._used_seconds = 0.0

    @property
    def used_seconds(self) -> float:
        """For how long at least one attempt was at work, until now."""
        with self._lock:
            self._divide()
            return self._used_seconds

    def share(self) -> DeviceShare:
        """The share of an attempt that begins now."""
        share = DeviceShare(self)
        share.go_on()
        return share

    def add(self, share: DeviceShare) -> None:
        """Let it have a part from now on."""
        with self._lock:
            self._divide()
            self._at_work.add(share)

    def remove(self, share: DeviceShare) -> None:
        """Let it have no part from now on."""
        with self._lock:
            self._divide()
            self._at_work.discard(share)

    def seconds_of(self, share: DeviceShare) -> float:
        """What it has had until now."""
        with self._lock:
            self._divide()
            return share.divided_seconds

    def _divide(self) -> None:
        now = self._clock()
        if self._at_work:
            self._used_seconds += now - self._divided_until
        for share in self._at_work:
            share.divided_seconds += (now - self._divided_until) / len(self._at_work)
        self._divided_until = now


class DeviceShare:
    """One attempt's part of its device's time."""

    def __init__(self, device: DeviceTime) -> None:
        self.divided_seconds = 0.0
        """Written by DeviceTime alone, under its lock."""
        self._device = device

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._device.seconds_of(self)

    def go_on(self) -> None:
        """It is at work."""
        self._device.add(self)

    def pause(self) -> None:
        """It waits, or has ended."""
        self._device.remove(self)


class DeviceUse(TypedDict):
    """How busy a worker's devices were, on average."""

    busy_share: float
    over_seconds: float
    source: Literal["nvml", "attempts"]
    """nvml: a kernel ran, whoever started it. attempts: one of the worker's was at work and did not wait."""


class DeviceMeter:
    """How busy devices were lately: by the driver if it counts, else by the attempts at work. Used by one thread."""

    def __init__(
        self,
        devices: Mapping[str, DeviceTime],
        utilization: nvml.Utilization | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`utilization`: of these devices, by the driver."""
        self._devices = devices
        self._utilization = utilization
        self._clock = clock
        self._sampled_at = clock()
        self._used_seconds = self._used()
        self._spans: collections.deque[tuple[float, float, float]] = collections.deque()
        """Until when, for how long, and of that the busy seconds of a device."""

    def sample(self) -> None:
        """Look how busy they were since the last look."""
        now, used = self._clock(), self._used()
        seconds, grew = now - self._sampled_at, used - self._used_seconds
        self._sampled_at, self._used_seconds = now, used
        busy: float | None = grew / len(self._devices)
        if self._utilization is not None:
            share = self._utilization()
            busy = None if share is None else share * seconds
        if busy is not None:
            self._spans.append((now, seconds, busy))
        while self._spans and self._spans[0][0] <= now - WINDOW_SECONDS:
            self._spans.popleft()

    def use(self) -> DeviceUse | None:
        """Of the last ten minutes, or since it began; None if nothing is known of them."""
        seconds = sum(span[1] for span in self._spans)
        if seconds <= 0:
            return None
        share = min(1.0, max(0.0, sum(span[2] for span in self._spans) / seconds))
        source = "attempts" if self._utilization is None else "nvml"
        return {"busy_share": round(share, 4), "over_seconds": round(seconds, 1), "source": source}

    def _used(self) -> float:
        return sum(device.used_seconds for device in self._devices.values())


@contextmanager
def metered(
    devices: Mapping[str, DeviceTime], report: Callable[[DeviceUse], None], every_seconds: float
) -> Generator[None]:
    """Tell every so often how busy devices, by their UUIDs, were, while the context is open."""

    def meter_and_report(is_over: threading.Event) -> None:
        with nvml.utilization(list(devices)) as utilization:
            meter, reported_at = DeviceMeter(devices, utilization), time.monotonic()
            while not is_over.wait(min(SAMPLED_EVERY_SECONDS, every_seconds)):
                meter.sample()
                use = meter.use()
                if use is not None and time.monotonic() - reported_at >= every_seconds:
                    reported_at = time.monotonic()
                    report(use)

    with in_background(meter_and_report, "says how busy the device is"):
        yield
