"""The worker of one device: it registers, claims trials over HTTP for its slots, and shuts down cleanly."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TypeVar

from layers.capabilities import Capabilities
from layers.results_version import RESULTS_VERSION
from layersweep import logs
from workers import activity, device, device_time
from workers.data.cache import DatasetCache
from workers.device import Device
from workers.device_lock import DeviceBusyError, lock_device
from workers.device_memory import DeviceMemory
from workers.device_time import DeviceTime, DeviceUse
from workers.engine.__main__ import DEVICE_KINDS, RUNTIMES
from workers.engine.parallel.rank_engine import RANK_ENGINES
from workers.engine.verbs import DESCRIBE
from workers.engine_cache import EngineCache
from workers.execution import Execution
from workers.interruption import DrainedError, InterruptibleCall, Interruption
from workers.processes.child import ChildError
from workers.processes.children import Children
from workers.service.client import (
    BACKOFF,
    RefusedError,
    ServiceClient,
    ServiceError,
    TokenRefusedError,
    UnreachableError,
)
from workers.service.leased_trial import LeasedTrial
from workers.service.messages import LeaseAnswer, RegistrationAnswer, RegistrationRequest
from workers.slots import Slot, Slots
from workers.trial.context import Limits

logger = logging.getLogger("layersweep.worker")

Answer = TypeVar("Answer")

CLAIM_WAIT_SECONDS = 20.0
DESCRIBE_SECONDS = 120.0
LOCK_POLL_SECONDS = 2.0
TOKEN_SECONDS = 600.0
"""How long a worker whose token was revoked waits for a new one in the token file."""
TOKEN_REMEDY = ": give the service's token (LAYERSWEEP_TOKEN, LAYERSWEEP_TOKEN_FILE)"
LAST_ANSWER_SECONDS = 2.0
"""How long a worker that shuts down waits for the answer to a claim that it has abandoned."""


class WorkerError(Exception):
    """The worker cannot work at all; the message says what to change."""

    status = 1
    """The exit status of the process."""


class DeviceTakenError(WorkerError):
    """Another worker has the GPU."""

    status = 3


class Worker:
    """The worker of one device. `work` blocks; a signal handler or another thread may call `drain`."""

    def __init__(
        self,
        service: ServiceClient,
        name: str,
        *,
        children: Sequence[Children],
        cache_dir: Path,
        worked_on: Device | None = None,
        labels: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        link: str | None = None,
        timing_cache: bool = True,
        wait_for_device: bool = False,
        max_trials: int | None = None,
        idle_exit_seconds: float | None = None,
        activity_seconds: float = activity.LOGGED_EVERY_SECONDS,
    ) -> None:
        """`children`: one set for each slot; `worked_on`: the device, as it is registered (default: the CPU);
        `labels`: what sweeps may ask for by `target.labels`; `link`: how devices that share engines are connected;
        `activity_seconds`: how often the log says what the slots do and how busy the device was."""
        self._service = service
        self._name = name
        self._children = children[0]
        """The first slot's children, which also serve the worker itself before that slot needs them."""
        self._slots = Slots(children, self._execute)
        self._datasets = DatasetCache(service, cache_dir)
        self._engines = EngineCache(cache_dir / "engines", keeps_timings=timing_cache)
        self._limits = limits or Limits()
        self._labels = labels or {}
        self._link = link
        self._budget = TrialBudget(max_trials)
        self._idle_exit_seconds = idle_exit_seconds
        self._activity_seconds = activity_seconds
        self._idle_since = 0.0
        """When the last attempt ended, or the worker began."""
        self._draining = Interruption()
        self._registered: RegistrationAnswer | None = None
        self._claiming: InterruptibleCall[list[LeaseAnswer]] | None = None
        self._waits_each_time = wait_for_device
        self._waited_for_device = False
        self._capabilities: dict[str, Capabilities] = {}
        self._device = worked_on or device.cpu(self._children.threads)
        uuids = sorted({self._uuid_of(each) for each in children} | set(self._children.rank_devices) - {""})
        self._device_times = {uuid: DeviceTime() for uuid in uuids}
        self._attempts = activity.RunningAttempts(len(self._slots), self._device_times.values())
        self._device_memories = {uuid: DeviceMemory(self._device["memory_bytes"]) for uuid in uuids}

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
                if not self._waits_each_time:
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
            self._register()
            metered = device_time.metered(self._device_times, self._tell_device_use, self._activity_seconds)
            with activity.logged(self._attempts.observe, self._activity_seconds), metered:
                self._claim_and_execute()
        except DrainedError:
            is_drained = True
        finally:
            self.drain()
            self._slots.close()
            self._deregister()
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
        for runtime in (each for each in RUNTIMES if DEVICE_KINDS[each] == self._device["kind"]):
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
                "device_model": self._device["model"],
                "devices": max(1, len(self._children.rank_devices)) if runtime in RANK_ENGINES else 1,
                "link": self._link if runtime in RANK_ENGINES else None,
            }
        if not self._capabilities:
            remedy = "`layersweep worker --doctor` says what to install"
            raise WorkerError(f"no runtime works on {self._device['model']}. {'; '.join(lacks)}. {remedy}")
        for lack in lacks:
            logger.info("not served: %s", lack)

    def _uuid_of(self, children: Children) -> str:
        """The device of a slot: its own if the worker has several GPUs, else the worker's."""
        return children.gpu_uuid if children.rank_devices and children.gpu_uuid else self._device["uuid"]

    def _register(self) -> None:
        body: RegistrationRequest = {
            "name": self._name,
            "device": self._device,
            "targets": list(self._capabilities.values()),
            "versions": {
                "results": str(RESULTS_VERSION),
                **device.versions(),
                **{each: c["version"] for each, c in self._capabilities.items()},
            },
        }
        if len(self._slots) > 1:
            body["slots"] = len(self._slots)
        if self._labels:
            body["labels"] = dict(self._labels)
        key = uuid.uuid4().hex
        while True:
            try:
                registered = self._retry_until_drained(lambda key=key: self._service.register(body, key))
                break
            except RefusedError as refusal:
                if refusal.kind == "in-flight":
                    self._draining.wait(refusal.retry_after_seconds or 1.0)
                    continue
                if refusal.kind == "device-in-use" and self._waits_for_device(refusal.retry_after_seconds):
                    key = uuid.uuid4().hex
                    continue
                remedy = TOKEN_REMEDY if refusal.status == 403 else ""
                failure = DeviceTakenError if refusal.kind == "device-in-use" else WorkerError
                raise failure(f"{self._service.server} refused the registration: {refusal}{remedy}") from None
            except TokenRefusedError as refusal:
                raise WorkerError(f"{self._service.server} refused the registration: {refusal}{TOKEN_REMEDY}") from None
        self._registered = registered
        logger.info(
            "registered with %s as %s for %s%s",
            self._service.server,
            self._name,
            ", ".join(registered["target_keys"]),
            f", {len(self._slots)} slots" if len(self._slots) > 1 else "",
        )

    def _waits_for_device(self, seconds: float | None) -> bool:
        """Wait until the service would have forgotten a killed worker. Raises DrainedError.

        Returns whether to register again: only once, unless the worker waits for as long as another has the device.
        """
        if seconds is None or (self._waited_for_device and not self._waits_each_time):
            return False
        self._waited_for_device = True
        logger.warning(
            "a worker has %s already: trying again in %.0f s, when it is forgotten if it was killed",
            self._device["uuid"],
            seconds,
        )
        self._draining.wait(seconds)
        self._draining.check()
        return True

    def _deregister(self) -> None:
        """Give the device up, so that the next worker need not wait. If the service is away, its timeout does the
        same."""
        if self._registered is not None:
            with contextlib.suppress(ServiceError):
                self._service.deregister(self._registered["id"])

    def _tell_device_use(self, use: DeviceUse) -> None:
        """Report how busy the device was. Failures are ignored: an older service does not know this call."""
        with contextlib.suppress(ServiceError):
            self._service.report_device_use(self._registration["id"], use)

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
                logger.info("stopping: nothing to do for %g s", self._idle_exit_seconds)
                return
            leases = self._claim(wait_seconds, at_most=reserved)
            self._budget.give_back(reserved - len(leases))
            for slot, leased in zip(free, leases, strict=False):
                slot.give(leased)

    def _wait_seconds(self, *, is_idle: bool) -> float:
        """How long a claim may wait; negative if the worker has been idle for too long."""
        if self._idle_exit_seconds is None:
            return CLAIM_WAIT_SECONDS
        idle_seconds = time.monotonic() - self._idle_since if is_idle else 0.0
        return min(CLAIM_WAIT_SECONDS, self._idle_exit_seconds - idle_seconds)

    @property
    def _registration(self) -> RegistrationAnswer:
        assert self._registered is not None, "a worker registers before it claims"
        return self._registered

    def _claim(self, wait_seconds: float, *, at_most: int) -> list[LeasedTrial]:
        key = uuid.uuid4().hex

        def claim() -> list[LeaseAnswer]:
            worker_id = self._registration["id"]
            self._claiming = InterruptibleCall(
                lambda: self._service.claim(worker_id, wait_seconds, key, at_most=at_most), self._give_back
            )
            return self._claiming.wait(self._draining)

        while True:
            try:
                return [LeasedTrial.of(answer) for answer in self._retry_until_drained(claim)]
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
                self._register()
                return []

    def _give_back(self, leases: list[LeaseAnswer]) -> None:
        """Release trials that a claim received after the worker was asked to stop."""
        for lease in leases:
            with contextlib.suppress(ServiceError):
                self._service.release(lease["trial"], lease["attempt"], "the worker was asked to stop", charge=False)

    def _retry_until_drained(self, call: Callable[[], Answer]) -> Answer:
        """Retry a call until the service answers. Raises DrainedError, and TokenRefusedError: at once if the token was
        never accepted, after `TOKEN_SECONDS` if it was."""
        refused_since: float | None = None
        for delay in replace(BACKOFF, most_seconds=15.0):
            self._draining.check()
            try:
                return call()
            except UnreachableError as error:
                if isinstance(error, TokenRefusedError):
                    now = time.monotonic()
                    refused_since = refused_since or now
                    if self._registered is None or now - refused_since + delay > TOKEN_SECONDS:
                        raise
                where = self._service.server
                logger.warning("the service at %s %s (%s); trying again in %.1f s", where, error.what, error, delay)
            self._draining.wait(delay)
        raise AssertionError("waits never end")

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
            service=self._service,
            children=slot.children,
            datasets=self._datasets,
            engines=self._engines,
            device_uuid=self._uuid_of(slot.children),
            capabilities=self._capabilities,
            heartbeat_seconds=self._registration["heartbeat_seconds"],
            interruption=interruption,
            limits=self._limits,
            device_time=self._device_times[self._uuid_of(slot.children)],
            device_memory=self._device_memories[self._uuid_of(slot.children)],
            every_memory=tuple(self._device_memories.values()),
            slot=f"slot {slot.number}: " if several else "",
            wants_next=wants_next,
        )
        with self._attempts.running(execution), logs.about(slot=slot.number) if several else contextlib.nullcontext():
            next_one = execution.run()
        if has_reserved and next_one is None:
            self._budget.give_back(1)
        self._idle_since = time.monotonic()
        return next_one


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
