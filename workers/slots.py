"""The slots of a worker: each executes one attempt at a time, with children of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from workers.interruption import Interruption, InterruptionError
from workers.processes.children import Children
from workers.service.leased_trial import LeasedTrial

MOST_ON_A_GPU = 8
SLOT_BYTES = 6 << 30
"""Of a GPU's memory, for one slot: three processes' contexts, a training, an engine."""

AUTO = "auto"


def automatic_count(*, gpu_memory_bytes: int | None, cores: int) -> int:
    """How many slots a worker has that was told none. `gpu_memory_bytes`: None for a CPU.

    Two cores a slot keep its training and its builder fed. On a CPU what takes no turn uses the very cores that are
    measured, so there is one.
    """
    if gpu_memory_bytes is None:
        return 1
    return max(1, min(MOST_ON_A_GPU, cores // 2, gpu_memory_bytes // SLOT_BYTES))


Execute = Callable[["Slot", LeasedTrial, Interruption], LeasedTrial | None]
"""Execute a lease in a slot until its end or its interruption; the next lease, if there was one at once."""


class Slot:
    """A thread that executes one lease after another.

    `children` are of this slot alone. Those that the thread starts end with it, so it lives as long as the worker.
    """

    def __init__(self, number: int, children: Children, execute: Execute, on_free: Callable[[], None]) -> None:
        """`number`: from 1; `on_free`: called, by the slot's thread, whenever it has become free."""
        self.number = number
        self.children = children
        self.failure: BaseException | None = None
        """What ended the thread, if it was not told to end: a defect of the worker."""
        self._execute = execute
        self._on_free = on_free
        self._leases: queue.SimpleQueue[LeasedTrial | None] = queue.SimpleQueue()
        self._is_free = True
        self._running: Interruption | None = None
        self._stopped: InterruptionError | None = None
        self._thread = threading.Thread(target=self._work, name=f"slot {number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_free(self) -> bool:
        """Whether it can be given a lease."""
        return self._is_free

    def give(self, leased: LeasedTrial) -> None:
        """Let the free slot execute a lease."""
        self._is_free = False
        self._leases.put(leased)

    def interrupt(self, cause: InterruptionError) -> None:
        """Interrupt what it executes, and all that it is given from now on. Takes no lock: a signal handler may."""
        self._stopped = cause
        running = self._running
        if running is not None:
            running.set(cause)

    def close(self) -> None:
        """Wait until what it executes has ended, and end the children that are its own."""
        self._leases.put(None)
        self._thread.join()
        self.children.kill()

    def _work(self) -> None:
        while (leased := self._leases.get()) is not None:
            try:
                while leased is not None:
                    leased = self._execute_one(leased)
            except BaseException as error:  # noqa: BLE001 - raised again by the worker's thread
                self.failure = error
                return
            finally:
                self._is_free = True
                self._on_free()

    def _execute_one(self, leased: LeasedTrial) -> LeasedTrial | None:
        self._running = interruption = Interruption()
        # Whoever interrupts the slot either finds the interruption, or is found here.
        if self._stopped is not None:
            interruption.set(self._stopped)
        try:
            return self._execute(self, leased, interruption)
        finally:
            self._running = None
            interruption.close()


class Slots:
    """All slots of a worker: which are free, and a wait for the next that is."""

    def __init__(self, children: Sequence[Children], execute: Execute) -> None:
        """`children`: one set a slot."""
        self._changed = threading.Condition()
        self._slots = [Slot(number, each, execute, self._notify) for number, each in enumerate(children, 1)]

    def __len__(self) -> int:
        return len(self._slots)

    def start(self) -> None:
        for slot in self._slots:
            slot.start()

    def warm_up(self) -> None:
        """Start the children that every trial needs, while there is none yet."""
        for slot in self._slots:
            slot.children.warm_up()

    def free(self) -> list[Slot]:
        """The slots that can be given a lease. Raises what ended one."""
        for slot in self._slots:
            if slot.failure is not None:
                raise slot.failure
        return [slot for slot in self._slots if slot.is_free]

    def wait_for_free(self, at_least: int = 1) -> list[Slot]:
        """Wait until so many slots are free; they. Raises what ended one."""
        with self._changed:
            while len(free := self.free()) < at_least:
                self._changed.wait()
            return free

    def interrupt(self, cause: InterruptionError) -> None:
        """Interrupt what they execute, for good. Takes no lock."""
        for slot in self._slots:
            slot.interrupt(cause)

    def close(self) -> None:
        """Wait until what they execute has ended, and end their children."""
        for slot in self._slots:
            slot.close()
        for slot in self._slots:
            slot.children.builder().kill()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
