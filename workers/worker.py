"""The worker of one device: it registers, claims trials over HTTP for its slots, and shuts down cleanly."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Sequence
from typing import IO

from layers.capabilities import Capabilities
from layersweep import logs
from workers import activity
from workers.data.cache import DatasetCache
from workers.devices import device, time_shares
from workers.devices.device import DeviceChoice
from workers.devices.locks import DeviceBusyError, lock_device
from workers.devices.memory import DeviceMemory
from workers.devices.time_shares import DeviceTime
from workers.engine.__main__ import DEVICE_KINDS, RUNTIMES
from workers.engine.parallel.rank_engine import RANK_ENGINES
from workers.engine.verbs import DESCRIBE
from workers.engine_cache import EngineCache
from workers.execution import Execution, SlotContext, WorkerContext
from workers.interruption import DrainedError, InterruptibleCall, Interruption
from workers.processes.child import ChildError
from workers.processes.children import Children
from workers.registration import TOKEN_REMEDY, Registration, WorkerError
from workers.service.client import RefusedError, ServiceClient, ServiceError, TokenRefusedError
from workers.service.leased_trial import LeasedTrial
from workers.service.messages import LeaseAnswer
from workers.settings import CacheSettings, StopConditions, WorkerIdentity
from workers.slots import Slot, Slots
from workers.trial.context import Limits

logger = logging.getLogger("layersweep.worker")

CLAIM_WAIT_SECONDS = 20.0
DESCRIBE_SECONDS = 120.0
LOCK_POLL_SECONDS = 2.0
LAST_ANSWER_SECONDS = 2.0
"""How long a worker that shuts down waits for the answer to a claim that it has abandoned."""


class Worker:
    """The worker of one device. `work` blocks; a signal handler or another thread may call `drain`."""

    def __init__(
        self,
        service: ServiceClient,
        identity: WorkerIdentity,
        *,
        children: Sequence[Children],
        caches: CacheSettings,
        choice: DeviceChoice | None = None,
        limits: Limits | None = None,
        stops: StopConditions | None = None,
        activity_seconds: float = activity.LOGGED_EVERY_SECONDS,
    ) -> None:
        """`children`: one set for each slot; `choice`: what it works on (default: the CPU); `activity_seconds`: how
        often the log says what the slots do and how busy the device was."""
        self._service = service
        self._children = children[0]
        """The first slot's children, which also serve the worker itself before that slot needs them."""
        self._choice = choice or DeviceChoice(device.cpu(self._children.threads))
        self._stops = stops or StopConditions()
        self._limits = limits or Limits()
        self._slots = Slots(children, self._execute)
        self._datasets = DatasetCache(service, caches.folder)
        self._engines = EngineCache(caches.folder / "engines", keeps_timings=caches.keeps_timings)
        self._budget = TrialBudget(self._stops.max_trials)
        self._activity_seconds = activity_seconds
        self._idle_since = 0.0
        """When the last attempt ended, or the worker began."""
        self._draining = Interruption()
        self._registration = Registration(
            service,
            identity,
            self._choice.registered,
            slots=len(self._slots),
            draining=self._draining,
            waits_for_device=not self._stops.if_device_is_taken,
        )
        self._claiming: InterruptibleCall[list[LeaseAnswer]] | None = None
        self._capabilities: dict[str, Capabilities] = {}
        uuids = sorted({self._uuid_of(each) for each in children} | set(self._children.rank_devices) - {""})
        memory_bytes = self._choice.registered["memory_bytes"]
        self._device_times = {uuid: DeviceTime() for uuid in uuids}
        self._attempts = activity.RunningAttempts(len(self._slots), self._device_times.values())
        self._device_memories = {uuid: DeviceMemory(memory_bytes) for uuid in uuids}

    def drain(self) -> None:
        """Give the running attempts back and let `work` return."""
        cause = DrainedError("the worker was asked to stop")
        self._draining.set(cause)
        self._slots.interrupt(cause)

    def lock_device(self, gpu_uuid: str) -> IO[str]:
        """Hold a GPU until the file is closed. Raises DeviceBusyError, OSError, or DrainedError if it waits."""
        has_warned = False
        while True:
            try:
                return lock_device(gpu_uuid)
            except DeviceBusyError as busy:
                if self._stops.if_device_is_taken:
                    raise
                if not has_warned:
                    logger.warning("%s. Waiting until it is free", busy)
                has_warned = True
            self._draining.wait(LOCK_POLL_SECONDS)
            self._draining.check()

    def work(self) -> None:
        """Register, then claim and execute until drained, idle for too long or done. Raises WorkerError."""
        is_drained = False
        self._slots.start()
        try:
            # Children take seconds to import; meanwhile a builder says what it can do.
            self._slots.warm_up()
            self._describe_targets()
            for runtime in self._capabilities:
                self._children.warm_up_builder(runtime, self._draining)
            self._registration.register(self._capabilities)
            report = self._registration.report_device_use
            metered = time_shares.metered(self._device_times, report, self._activity_seconds)
            with activity.logged(self._attempts.observe, self._activity_seconds), metered:
                self._claim_and_execute()
        except DrainedError:
            is_drained = True
        finally:
            self.drain()
            self._slots.close()
            self._registration.deregister()
            if self._claiming is not None:
                # A worker that has signed off gets no more trials, so a pending answer arrives at once.
                self._claiming.end(LAST_ANSWER_SECONDS)
            self._service.close()
        if is_drained:
            logger.info("stopped")

    # --- registration -----------------------------------------------------------------------------------------------

    def _describe_targets(self) -> None:
        """Ask the engine child what each runtime can do here."""
        lacks: list[str] = []
        for runtime in (each for each in RUNTIMES if DEVICE_KINDS[each] == self._choice.registered["kind"]):
            try:
                found = self._children.builder().request(
                    DESCRIBE, {"runtime": runtime}, timeout_seconds=DESCRIBE_SECONDS, interruption=self._draining
                )
            except (ChildError, OSError) as failure:
                lacks.append(f"{runtime}: {failure}")
                continue
            if found["build_only"]:
                lacks.append(f"{runtime}: {found['lacks'].get('execution', 'it builds here and does not run')}")
                continue
            # The engine child knows the processor; the worker knows how many threads use it.
            self._capabilities[runtime] = {
                **found,
                "device_model": self._choice.registered["model"],
                "devices": max(1, len(self._children.rank_devices)) if runtime in RANK_ENGINES else 1,
                "link": self._choice.link if runtime in RANK_ENGINES else None,
            }
        if not self._capabilities:
            remedy = "`layersweep worker --doctor` says what to install"
            raise WorkerError(f"no runtime works on {self._choice.registered['model']}. {'; '.join(lacks)}. {remedy}")
        for lack in lacks:
            logger.info("not served: %s", lack)

    def _uuid_of(self, children: Children) -> str:
        """The device of a slot: its own if the worker has several GPUs, else the worker's."""
        return children.gpu_uuid if children.rank_devices and children.gpu_uuid else self._choice.registered["uuid"]

    # --- claiming ---------------------------------------------------------------------------------------------------

    def _claim_and_execute(self) -> None:
        self._idle_since = time.monotonic()
        while True:
            free = self._slots.wait_for_free()
            self._draining.check()
            reserved = self._budget.reserve(len(free))
            if not reserved:
                self._slots.wait_for_free(len(self._slots))
                if not self._budget.is_left:
                    return
                continue
            wait_seconds = self._wait_seconds(is_idle=len(free) == len(self._slots))
            if wait_seconds < 0:
                logger.info("stopping: nothing to do for %g s", self._stops.idle_seconds)
                return
            leases = self._claim(wait_seconds, at_most=reserved)
            self._budget.give_back(reserved - len(leases))
            for slot, leased in zip(free, leases, strict=False):
                slot.give(leased)

    def _wait_seconds(self, *, is_idle: bool) -> float:
        """How long a claim may wait; negative if the worker has been idle for too long."""
        if self._stops.idle_seconds is None:
            return CLAIM_WAIT_SECONDS
        idle_seconds = time.monotonic() - self._idle_since if is_idle else 0.0
        return min(CLAIM_WAIT_SECONDS, self._stops.idle_seconds - idle_seconds)

    def _claim(self, wait_seconds: float, *, at_most: int) -> list[LeasedTrial]:
        key = uuid.uuid4().hex

        def claim() -> list[LeaseAnswer]:
            worker_id = self._registration.worker_id
            self._claiming = InterruptibleCall(
                lambda: self._service.claim(worker_id, wait_seconds, key, at_most=at_most), self._give_back
            )
            return self._claiming.wait(self._draining)

        while True:
            try:
                return [LeasedTrial.of(answer) for answer in self._registration.retry_until_drained(claim)]
            except TokenRefusedError as refusal:
                raise WorkerError(f"{self._service.server} refused a claim: {refusal}{TOKEN_REMEDY}") from None
            except RefusedError as refusal:
                if refusal.kind == "in-flight":
                    # The answer was lost while the service was still working on the claim.
                    self._draining.wait(refusal.retry_after_seconds or 1.0)
                    continue
                if refusal.status != 404:
                    raise WorkerError(f"{self._service.server} refused a claim: {refusal}") from None
                logger.warning("the service does not know this worker any more: registering again")
                self._registration.register(self._capabilities)
                return []

    def _give_back(self, leases: list[LeaseAnswer]) -> None:
        """Release trials that a claim received after the worker was asked to stop."""
        for lease in leases:
            with contextlib.suppress(ServiceError):
                self._service.release(lease["trial"], lease["attempt"], "the worker was asked to stop", charge=False)

    # --- executing, in the slots' threads -----------------------------------------------------------------------------

    def _execute(self, slot: Slot, leased: LeasedTrial, interruption: Interruption) -> LeasedTrial | None:
        has_reserved = False

        def wants_next() -> bool:
            nonlocal has_reserved
            has_reserved = self._draining.cause is None and self._budget.reserve(1) == 1
            return has_reserved

        several = len(self._slots) > 1
        execution = Execution(
            leased,
            self._context(),
            self._slot_context(slot),
            interruption,
            label=f"slot {slot.number}: " if several else "",
            wants_next=wants_next,
        )
        with self._attempts.running(execution), logs.about(slot=slot.number) if several else contextlib.nullcontext():
            next_one = execution.run()
        if has_reserved and next_one is None:
            self._budget.give_back(1)
        self._idle_since = time.monotonic()
        return next_one

    def _context(self) -> WorkerContext:
        return WorkerContext(
            service=self._service,
            datasets=self._datasets,
            engines=self._engines,
            capabilities=self._capabilities,
            heartbeat_seconds=self._registration.answer["heartbeat_seconds"],
            limits=self._limits,
        )

    def _slot_context(self, slot: Slot) -> SlotContext:
        uuid = self._uuid_of(slot.children)
        return SlotContext(
            children=slot.children,
            device_uuid=uuid,
            device_time=self._device_times[uuid],
            device_memory=self._device_memories[uuid],
            every_memory=tuple(self._device_memories.values()),
        )


class TrialBudget:
    """How many more attempts the worker may begin. Thread-safe."""

    def __init__(self, trials: int | None) -> None:
        """`trials`: None for no limit."""
        self._lock = threading.Lock()
        self._left = trials

    @property
    def is_left(self) -> bool:
        return self._left is None or self._left > 0

    def reserve(self, count: int) -> int:
        """Reserve up to `count` attempts; return how many."""
        with self._lock:
            if self._left is None:
                return count
            taken = min(count, self._left)
            self._left -= taken
            return taken

    def give_back(self, count: int) -> None:
        """Return reserved attempts that were not begun."""
        with self._lock:
            if self._left is not None:
                self._left += count
