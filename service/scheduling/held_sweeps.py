"""What a process holds of each sweep that it leads: the epoch, the sweep in memory, and how the step that runs gets on.

One step of a sweep runs at a time; steps of different sweeps know nothing of each other.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from service.database.json_columns import RegisteredTarget
from service.scheduling.sweep_scheduler import SweepScheduler


@dataclass(slots=True, eq=False)
class HeldSweep:
    """A sweep as this process knows it. Whoever holds `lock` runs its step, and alone changes what is below."""

    id: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    epoch: int | None = None
    """None: this process does not lead it now."""
    scheduler: SweepScheduler | None = None
    offered: list[RegisteredTarget] | None = None
    """The targets that were offered when one was last looked for; None: never, or one was found."""
    failures: int = 0
    """How many of its steps failed in a row."""
    not_before: float = -math.inf
    """When its next step may begin (monotonic clock)."""
    batches_until: float | None = None
    """When its next step is due, if endings are worked in by the batch (monotonic clock)."""
    has_more: bool = False
    """Its last step left something to do."""
    is_outdated: bool = True
    """Its share of the workers' slots is to be looked at before the next step."""
    is_wanted: bool = False
    """Something happened while a step ran: another one is due."""
    stepped_at: float = -math.inf
    """When its last step began (monotonic clock)."""
    progressed_at: float | None = None
    """When the step that runs last made progress (monotonic clock); None: none runs."""

    def progressed(self) -> None:
        """The step that runs has made progress."""
        self.progressed_at = time.monotonic()

    def forget(self) -> None:
        """Lead it no more. What the sweep had in memory is built again from its rows."""
        self.epoch = self.scheduler = self.offered = self.batches_until = None
        self.has_more = False


class HeldSweeps:
    """The sweeps of a process by their id. May be used from any thread."""

    def __init__(self) -> None:
        self._held: dict[str, HeldSweep] = {}
        self._lock = threading.Lock()

    def of(self, sweep_id: str) -> HeldSweep:
        """The sweep with this id, new if it is not known."""
        with self._lock:
            return self._held.setdefault(sweep_id, HeldSweep(sweep_id))

    def find(self, sweep_id: str) -> HeldSweep | None:
        with self._lock:
            return self._held.get(sweep_id)

    def led(self) -> list[HeldSweep]:
        """The sweeps that this process leads."""
        with self._lock:
            return [held for held in self._held.values() if held.epoch is not None]

    def replace(self, held: HeldSweep, *, not_before: float, failures: int) -> None:
        """Leave a sweep to the step that hangs in it, and begin anew with it: what that step writes is fenced."""
        with self._lock:
            if self._held.get(held.id) is held:
                self._held[held.id] = HeldSweep(held.id, not_before=not_before, failures=failures)

    def keep(self, sweep_ids: Collection[str]) -> None:
        """Forget the sweeps that are not among these and in which no step runs."""
        with self._lock:
            for held in list(self._held.values()):
                if held.id not in sweep_ids and held.progressed_at is None:
                    del self._held[held.id]

    def clear(self) -> None:
        with self._lock:
            self._held.clear()

    def end_batches(self) -> None:
        """Let every sweep have its next step now."""
        with self._lock:
            for held in self._held.values():
                held.batches_until = held.batches_until and 0.0

    def batching(self) -> bool:
        """Whether a sweep has a step that is due in a moment."""
        with self._lock:
            return any(held.batches_until is not None for held in self._held.values())
