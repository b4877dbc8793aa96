"""What an attempt waits for: told while it lasts, summed up by its cause, and not charged as the device's time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Literal

from workers.devices.time_shares import DeviceShare
from workers.engine.protocol import JsonObject

Cause = Literal["measurement_turn", "build_turn", "training_turn", "evaluation_turn", "memory"]

WAITING_FOR: Mapping[Cause, str] = {
    "measurement_turn": "its turn to measure on this device",
    "build_turn": "its turn to build on this device",
    "training_turn": "its turn to train on this device",
    "evaluation_turn": "its turn to evaluate on this device",
    "memory": "memory of this device",
}
"""How a wait is told to people."""

LOGGED_SECONDS = 5.0
"""Waits that last longer are in the worker's log."""

logger = logging.getLogger("layersweep.worker")

TURNS: Mapping[str, Cause] = {
    "export": "build_turn",
    "export_generation": "build_turn",
    "build": "build_turn",
    "load": "measurement_turn",
    "measure": "measurement_turn",
    "measure_prompt": "measurement_turn",
    "measure_step": "measurement_turn",
    "train": "training_turn",
}
"""Request to a child -> what it takes its turn for; of all others: an evaluation."""


class Waits:
    """The waits of one attempt. One thread waits; others may look."""

    def __init__(self, label: str, share: DeviceShare, tell: Callable[[JsonObject], None]) -> None:
        """`label`: what the log calls the attempt; `share`: of the device's time, of which a wait takes none; `tell`:
        passes progress on to the service."""
        self._label = label
        self._share = share
        self._report = tell
        self._lock = threading.Lock()
        """Of what follows: a wait that ends counts once."""
        self._seconds: dict[Cause, float] = {}
        self._current: tuple[Cause, float] | None = None
        """What it waits for, and since when."""
        self._is_logged = False

    @property
    def seconds(self) -> dict[str, float]:
        """By cause, without those that never were."""
        return {str(cause): round(seconds, 4) for cause, seconds in self._seconds.items()}

    @property
    def cause(self) -> Cause | None:
        """What it waits for now."""
        current = self._current
        return None if current is None else current[0]

    def seconds_until_now(self) -> dict[Cause, float]:
        """By cause, with the wait that goes on."""
        with self._lock:
            seconds = dict(self._seconds)
            if self._current is not None:
                cause, since = self._current
                seconds[cause] = seconds.get(cause, 0.0) + time.monotonic() - since
            return seconds

    def begin(self, cause: Cause, details: Mapping[str, object] | None = None, *, holder: int | None = None) -> None:
        """It waits, or goes on waiting. `details`: what else is reported.

        `holder`: the process of another worker, which has the device.
        """
        waiting_for = WAITING_FOR[cause]
        if holder is not None:
            waiting_for += f", which another worker (process {holder}) has"
        if self._current is None:
            self._current = cause, time.monotonic()
            self._is_logged = False
            self._share.pause()
        elif not self._is_logged and time.monotonic() - self._current[1] > LOGGED_SECONDS:
            self._is_logged = True
            logger.info("%s: waiting for %s", self._label, waiting_for)
        self._report({**(details or {}), "waiting_for": waiting_for, "wait_cause": cause})

    def end(self, details: Mapping[str, object] | None = None) -> None:
        """It waits no more, if it did."""
        if self._current is None:
            return
        with self._lock:
            (cause, since), self._current = self._current, None
            seconds = time.monotonic() - since
            self._seconds[cause] = self._seconds.get(cause, 0.0) + seconds
        self._share.go_on()
        self._report({**(details or {}), "waited_seconds": round(seconds, 4)})

    @contextmanager
    def waiting(self, cause: Cause) -> Generator[None]:
        """It waits for the time of the context."""
        self.begin(cause)
        try:
            yield
        finally:
            self.end()
