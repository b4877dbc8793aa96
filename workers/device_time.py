"""A device's time, divided among the attempts that are at work on it: what each is charged as `device_seconds`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


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
