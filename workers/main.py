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
from collections.abc import Generator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import FrameType

from layersweep import logs
from layersweep.transport import BearerToken
from workers import device, slots
from workers.device_lock import DeviceBusyError, lock_folder, turns_of
from workers.interruption import DrainedError
from workers.processes.children import Children
from workers.service.client import ServiceClient
from workers.trial.context import Limits
from workers.worker import DeviceTakenError, Worker, WorkerError

logger = logging.getLogger("layersweep.worker")


def run(
    server: str,
    token: BearerToken | None = None,
    name: str | None = None,
    *,
    device_name: str | None = None,
    group_names: Sequence[str] = (),
    ranks: int | None = None,
    engine_python: str | None = None,
    cache_dir: Path | str | None = None,
    threads: int | None = None,
    slot_count: int | None = None,
    labels: Mapping[str, str] | None = None,
    build_seconds: float | None = None,
    timing_cache: bool = True,
    wait_for_device: bool = False,
    max_trials: int | None = None,
    idle_exit_seconds: float | None = None,
) -> int:
    """Work for the service at `server` until told to stop; return the exit status.

    `device_name`: "cpu", or a GPU's UUID, its beginning, or its number (default: the first GPU, else the CPU);
    `group_names`: several GPUs that can share an engine; `ranks`: how many CPU processes can share one;
    `engine_python`: interpreter of the engine child; `cache_dir`: where datasets are kept (default: the user's cache);
    `threads`: for training and CPU engines (default: OMP_NUM_THREADS, or all that the process may use);
    `slot_count`: how many attempts run at once (default: as many as the device has room for, 1 on a CPU);
    `labels`: what sweeps may ask for by `target.labels`;
    `build_seconds`: how long an engine may be built before the builder counts as hung (default: ten minutes);
    `timing_cache`: whether builders keep kernel timings for later builds, if the runtime can;
    `wait_for_device`: whether to wait while another worker has the GPU (default: end with status 3);
    `max_trials`, `idle_exit_seconds`: stop after this many trials, or after this long without one.

    SIGTERM and SIGINT drain the worker: running attempts are given back uncharged, and the status is 0. A second signal
    ends the process at once.
    """
    if not logging.getLogger().handlers:
        logs.configure(logging.INFO, "text")
    threads = threads or device.default_threads()
    try:
        choice = device.choose(device_name, group_names, ranks, threads)
    except ValueError as problem:
        logger.error("%s", problem)
        return 1
    alive_file = os.environ.get("LAYERSWEEP_ALIVE_PATH")
    worker = Worker(
        ServiceClient(server, token, alive_file=Path(alive_file) if alive_file else None),
        name or device.default_name(),
        children=_children(choice, slot_count, threads, engine_python),
        worked_on=choice.registered,
        link=choice.link,
        labels=labels,
        cache_dir=Path(cache_dir) if cache_dir else default_cache_dir(),
        limits=Limits(build_seconds=build_seconds) if build_seconds else Limits(),
        timing_cache=timing_cache,
        wait_for_device=wait_for_device,
        max_trials=max_trials,
        idle_exit_seconds=idle_exit_seconds,
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


def _children(
    choice: device.DeviceChoice, slot_count: int | None, threads: int, engine_python: str | None
) -> list[Children]:
    """A set of children for each slot: `slot_count` slots over all devices, or as many as each device has room for.

    Neighbouring slots belong to different devices, so that a few trials are spread over them.
    """
    gpus = choice.gpus or (None,)
    children: list[list[Children]] = []
    for number, gpu in enumerate(gpus):
        if slot_count is not None:
            count = (slot_count + len(gpus) - 1 - number) // len(gpus)
        else:
            cores = device.cores() // len(gpus)
            count = slots.automatic_count(gpu_memory_bytes=gpu.memory_bytes if gpu else None, cores=cores)
        if count:
            children.append(
                Children.of_slots(
                    count,
                    threads=threads,
                    engine_python=engine_python,
                    gpu_uuid=gpu.uuid if gpu else None,
                    rank_devices=choice.rank_devices(gpu),
                )
            )
    return [each for in_turn in zip_longest(*children) for each in in_turn if each is not None]


def default_cache_dir() -> Path:
    """The user's cache folder for Layersweep."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layersweep"


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
