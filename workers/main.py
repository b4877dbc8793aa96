"""The worker: registers its device, claims trials over HTTP, executes them, and repeats.

This process holds the leases and talks to the service; it never imports torch or a runtime. Its children compute, so
a native crash, a poisoned device or a hang ends a child and not the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Generator
from itertools import zip_longest
from pathlib import Path
from types import FrameType

from layersweep import logs
from layersweep.transport import BearerToken
from workers import slots
from workers.devices import device
from workers.devices.locks import DeviceBusyError, lock_folder, turns_of
from workers.interruption import DrainedError
from workers.processes.children import Children
from workers.registration import DeviceTakenError, WorkerError
from workers.service.client import ServiceClient
from workers.settings import CacheSettings, DeviceSelection, ProcessSettings, StopConditions, WorkerIdentity
from workers.trial.context import Limits
from workers.worker import Worker

logger = logging.getLogger("layersweep.worker")


def run(
    server: str,
    token: BearerToken | None = None,
    *,
    identity: WorkerIdentity | None = None,
    selection: DeviceSelection | None = None,
    processes: ProcessSettings | None = None,
    caches: CacheSettings | None = None,
    stops: StopConditions | None = None,
) -> int:
    """Work for the service at `server` until told to stop; return the exit status.

    What is left out is as `workers.settings` says.

    SIGTERM and SIGINT drain the worker: running attempts are given back uncharged, and the status is 0. A second signal
    ends the process at once.
    """
    if not logging.getLogger().handlers:
        logs.configure(logging.INFO, "text")
    processes = processes or ProcessSettings()
    threads = processes.threads or device.default_threads()
    try:
        choice = device.choose(selection or DeviceSelection(), threads)
    except ValueError as problem:
        logger.error("%s", problem)
        return 1
    alive_file = os.environ.get("LAYERSWEEP_ALIVE_PATH")
    worker = Worker(
        ServiceClient(server, token, alive_file=Path(alive_file) if alive_file else None),
        identity or WorkerIdentity(),
        children=_children(choice, processes, threads),
        caches=caches or CacheSettings(),
        choice=choice,
        limits=Limits(build_seconds=processes.build_seconds) if processes.build_seconds else Limits(),
        stops=stops,
    )
    with drained_by_signals(worker), contextlib.ExitStack() as held:
        try:
            for gpu in choice.gpus:
                held.enter_context(worker.lock_device(gpu.uuid))
            for uuid in choice.lock_names:
                turns_of(uuid)
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
    return 0


def _children(choice: device.DeviceChoice, processes: ProcessSettings, threads: int) -> list[Children]:
    """A set of children for each slot: `slot_count` slots over all devices, or as many as each device has room for.

    Neighbouring slots belong to different devices, so that a few trials are spread over them.
    """
    gpus = choice.gpus or (None,)
    children: list[list[Children]] = []
    for number, gpu in enumerate(gpus):
        if processes.slot_count is not None:
            count = (processes.slot_count + len(gpus) - 1 - number) // len(gpus)
        else:
            cores = device.cores() // len(gpus)
            count = slots.automatic_count(gpu_memory_bytes=gpu.memory_bytes if gpu else None, cores=cores)
        if count:
            children.append(
                Children.of_slots(
                    count,
                    threads=threads,
                    engine_python=processes.engine_python,
                    gpu_uuid=gpu.uuid if gpu else None,
                    rank_devices=choice.rank_devices(gpu),
                )
            )
    return [each for in_turn in zip_longest(*children) for each in in_turn if each is not None]


@contextlib.contextmanager
def drained_by_signals(worker: Worker) -> Generator[None]:
    """Drain the worker at SIGTERM or SIGINT; end the process at once at a second one."""
    signals = 0
    # Made beforehand: a handler may interrupt a logger that holds its lock.
    notice = logs.line("stopping: what runs is given back (again to stop at once)").encode() + b"\n"

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
