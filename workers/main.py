"""The worker: registers its device, claims trials over HTTP, executes them, and repeats.

This process holds the lease and talks; it never imports torch or a runtime. What computes are its children, so that a
native crash, a poisoned device or a hang ends a child and not the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, TypeVar, cast

from layers.capabilities import Capabilities
from layers.results import RESULTS_VERSION
from layersweep import logs
from workers import device
from workers.data.cache import DatasetCache
from workers.device import Device
from workers.device_lock import DeviceBusyError, lock_device, lock_folder, turns_of
from workers.engine.__main__ import DEVICE_KINDS, RUNTIMES
from workers.engine_cache import EngineCache
from workers.execution import Execution
from workers.interruption import DrainedError, Interruption, call_until
from workers.processes.child import ChildError
from workers.processes.children import Children
from workers.service.client import BACKOFF, RefusedError, ServiceClient, ServiceError, UnreachableError
from workers.service.leased_trial import LeasedTrial
from workers.service.messages import LeaseAnswer, RegistrationAnswer, RegistrationRequest
from workers.trial.context import Limits

logger = logging.getLogger("layersweep.worker")

Answer = TypeVar("Answer")

CLAIM_WAIT_SECONDS = 20.0
DESCRIBE_SECONDS = 120.0
LOCK_POLL_SECONDS = 2.0


class WorkerError(Exception):
    """The worker cannot work at all; the message says what to change."""

    status = 1
    """Of the process."""


class DeviceTakenError(WorkerError):
    """Another worker has the GPU."""

    status = 3


def run(
    server: str,
    token: str | None = None,
    name: str | None = None,
    *,
    device_name: str | None = None,
    engine_python: str | None = None,
    cache_dir: Path | str | None = None,
    threads: int | None = None,
    build_seconds: float | None = None,
    timing_cache: bool = True,
    wait_for_device: bool = False,
    max_trials: int | None = None,
    idle_exit_seconds: float | None = None,
) -> int:
    """Work for the service at `server` until told to stop; the exit status.

    `device_name`: "cpu", or a GPU's UUID, its beginning, or its number (default: the first GPU, else the CPU);
    `engine_python`: interpreter of the engine child; `cache_dir`: where datasets are kept (default: the user's cache);
    `threads`: of training and of CPU engines (default: OMP_NUM_THREADS, or all that the process may use);
    `build_seconds`: how long an engine may be built before the builder counts as hung (default: ten minutes);
    `timing_cache`: whether builders keep their timings of kernels for the builds to come, where the runtime can;
    `wait_for_device`: whether to wait while another worker has the GPU (default: end with status 3);
    `max_trials`, `idle_exit_seconds`: stop after so many trials, or after so long without one.

    SIGTERM and SIGINT drain: the running attempt is given back uncharged, and the status is 0. A second signal ends the
    process at once.
    """
    if not logging.getLogger().handlers:
        logs.configure(logging.INFO, "text")
    try:
        gpu = device.chosen(device_name)
    except ValueError as problem:
        logger.error("%s", problem)
        return 1
    held: IO[str] | None = None
    threads = threads or device.default_threads()
    worked_on = device.gpu(gpu) if gpu else device.cpu(threads)
    worker = Worker(
        ServiceClient(server, token),
        name or device.default_name(),
        children=Children(threads=threads, engine_python=engine_python, gpu_uuid=gpu.uuid if gpu else None),
        worked_on=worked_on,
        cache_dir=Path(cache_dir) if cache_dir else default_cache_dir(),
        limits=Limits(build_seconds=build_seconds) if build_seconds else Limits(),
        timing_cache=timing_cache,
        wait_for_device=wait_for_device,
        max_trials=max_trials,
        idle_exit_seconds=idle_exit_seconds,
    )
    with _drained_by_signals(worker):
        try:
            if gpu is not None:
                held = worker.lock_device(gpu.uuid)
            turns_of(worked_on["uuid"])
        except DrainedError:
            logger.info("stopped")
            return 0
        except DeviceBusyError as problem:
            logger.error("%s", problem)
            return DeviceTakenError.status
        except OSError as problem:
            remedy = "LAYERSWEEP_LOCK_DIR names another folder"
            logger.error("no lock can be taken in %s: %s. %s", lock_folder(), problem, remedy)
            return 1
        try:
            worker.work()
        except WorkerError as failure:
            logger.error("%s", failure)
            return failure.status
        finally:
            if held is not None:
                held.close()
    return 0


def default_cache_dir() -> Path:
    """The user's cache folder for Layersweep."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layersweep"


class Worker:
    """One device's worker. `work` blocks; `drain` may be called from a signal handler or another thread."""

    def __init__(
        self,
        service: ServiceClient,
        name: str,
        *,
        children: Children,
        cache_dir: Path,
        worked_on: Device | None = None,
        limits: Limits | None = None,
        timing_cache: bool = True,
        wait_for_device: bool = False,
        max_trials: int | None = None,
        idle_exit_seconds: float | None = None,
    ) -> None:
        """`worked_on`: the device, as it is registered (default: the CPU)."""
        self._service = service
        self._name = name
        self._children = children
        self._datasets = DatasetCache(service, cache_dir)
        self._engines = EngineCache(cache_dir / "engines", keeps_timings=timing_cache)
        self._limits = limits or Limits()
        self._max_trials = max_trials
        self._idle_exit_seconds = idle_exit_seconds
        self._draining = Interruption()
        self._running: Interruption | None = None
        self._registered: RegistrationAnswer | None = None
        self._waits_each_time = wait_for_device
        self._waited_for_device = False
        self._capabilities: dict[str, Capabilities] = {}
        self._device = worked_on or device.cpu(children.threads)

    def drain(self) -> None:
        """Finish nothing more: give the running attempt back and return from `work`."""
        cause = DrainedError("the worker was asked to stop")
        self._draining.set(cause)
        if self._running is not None:
            self._running.set(cause)

    def lock_device(self, gpu_uuid: str) -> IO[str]:
        """Hold a GPU until the file is closed. Raises DeviceBusyError, OSError, or DrainedError if it waits."""
        said = False
        while True:
            try:
                return lock_device(gpu_uuid)
            except DeviceBusyError as busy:
                if not self._waits_each_time:
                    raise
                if not said:
                    logger.warning("%s. Waiting until it is free", busy)
                said = True
            self._draining.wait(LOCK_POLL_SECONDS)
            self._draining.check()

    def work(self) -> None:
        """Register, then claim and execute until drained, idle for too long or done. Raises WorkerError."""
        try:
            self._describe_targets()
            self._register()
            self._claim_and_execute()
        except DrainedError:
            logger.info("stopped")
        finally:
            self._children.kill()
            self._deregister()
            self._service.close()

    # --- registration -----------------------------------------------------------------------------------------------

    def _describe_targets(self) -> None:
        """Ask the engine child what each runtime can do here."""
        lacks: list[str] = []
        for runtime in (each for each in RUNTIMES if DEVICE_KINDS[each] == self._device["kind"]):
            try:
                found = self._children.builder().request(
                    "describe", {"runtime": runtime}, timeout_seconds=DESCRIBE_SECONDS, interruption=self._draining
                )
            except (ChildError, OSError) as failure:
                lacks.append(f"{runtime}: {failure}")
                continue
            if found["build_only"]:
                lacks.append(f"{runtime}: {found['lacks'].get('execution', 'it builds here and does not run')}")
                continue
            # The engine child knows the processor, the worker with how many threads it is used.
            self._capabilities[runtime] = cast("Capabilities", found | {"device_model": self._device["model"]})
        if not self._capabilities:
            remedy = "`layersweep worker --doctor` says what to install"
            raise WorkerError(f"no runtime works on {self._device['model']}. {'; '.join(lacks)}. {remedy}")
        for lack in lacks:
            logger.info("not served: %s", lack)

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
                remedy = ": give the service's token (LAYERSWEEP_TOKEN)" if refusal.status in (401, 403) else ""
                failure = DeviceTakenError if refusal.kind == "device-in-use" else WorkerError
                raise failure(f"{self._service.server} refused the registration: {refusal}{remedy}") from None
        self._registered = registered
        logger.info(
            "registered with %s as %s for %s",
            self._service.server,
            self._name,
            ", ".join(registered["target_keys"]),
        )

    def _waits_for_device(self, seconds: float | None) -> bool:
        """Wait until a worker that was killed would be forgotten; whether to register again. Raises DrainedError.

        It waits once, unless the worker is to wait for as long as another one has the device.
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
        """Give the device up, so that the next worker need not wait. Where nobody hears it, silence does the same."""
        if self._registered is not None:
            with contextlib.suppress(ServiceError):
                self._service.deregister(self._registered["id"])

    # --- claiming ---------------------------------------------------------------------------------------------------

    def _claim_and_execute(self) -> None:
        done, idle_since = 0, time.monotonic()
        while self._max_trials is None or done < self._max_trials:
            wait_seconds = CLAIM_WAIT_SECONDS
            if self._idle_exit_seconds is not None:
                wait_seconds = min(wait_seconds, idle_since + self._idle_exit_seconds - time.monotonic())
                if wait_seconds < 0:
                    logger.info("stopping: nothing to do for %g s", self._idle_exit_seconds)
                    return
            leased = self._claim(wait_seconds)
            if leased is not None:
                self._execute(leased)
                done += 1
                idle_since = time.monotonic()
                self._draining.check()

    @property
    def _registration(self) -> RegistrationAnswer:
        assert self._registered is not None, "a worker registers before it claims"
        return self._registered

    def _claim(self, wait_seconds: float) -> LeasedTrial | None:
        key = uuid.uuid4().hex

        def claim() -> LeaseAnswer | None:
            worker_id = self._registration["id"]
            return call_until(self._draining, lambda: self._service.claim(worker_id, wait_seconds, key))

        while True:
            try:
                answer = self._retry_until_drained(claim)
                return None if answer is None else LeasedTrial.of(answer)
            except RefusedError as refusal:
                if refusal.kind == "in-flight":
                    # Its answer was lost, and the service does not know it yet.
                    self._draining.wait(refusal.retry_after_seconds or 1.0)
                    continue
                if refusal.status != 404:
                    raise WorkerError(f"{self._service.server} refused a claim: {refusal}") from None
                logger.warning("the service does not know this worker any more: registering again")
                self._register()
                return None

    def _retry_until_drained(self, call: Callable[[], Answer]) -> Answer:
        """Make a call until the service answers. Raises DrainedError."""
        for delay in replace(BACKOFF, most_seconds=15.0):
            self._draining.check()
            try:
                return call()
            except UnreachableError as error:
                logger.warning(
                    "the service at %s does not answer (%s); trying again in %.1f s", self._service.server, error, delay
                )
            self._draining.wait(delay)
        raise AssertionError("waits never end")

    def _execute(self, leased: LeasedTrial) -> None:
        interruption = Interruption()
        execution = Execution(
            leased,
            service=self._service,
            children=self._children,
            datasets=self._datasets,
            engines=self._engines,
            device_uuid=self._device["uuid"],
            capabilities=self._capabilities,
            heartbeat_seconds=self._registration["heartbeat_seconds"],
            interruption=interruption,
            limits=self._limits,
        )
        self._running = interruption
        if self._draining.cause is not None:
            interruption.set(self._draining.cause)
        try:
            execution.run()
        finally:
            self._running = None
            interruption.close()


@contextlib.contextmanager
def _drained_by_signals(worker: Worker) -> Generator[None]:
    """SIGTERM and SIGINT drain the worker; the second of them ends the process at once."""
    signals = 0
    # Made beforehand: a handler may interrupt a logger that holds its lock.
    notice = logs.line("stopping: the running trial is given back (again to stop at once)").encode() + b"\n"

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            # The kernel ends the children with us.
            os._exit(128 + number)
        os.write(2, notice)
        worker.drain()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
