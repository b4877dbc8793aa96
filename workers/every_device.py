"""A worker for each device of a machine, each in its own process: started, stopped and waited for together."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from workers import slots
from workers.devices import device
from workers.engine.nvml import gpus

logger = logging.getLogger("layersweep.worker")

POLL_SECONDS = 0.2


def threads_each(count: int) -> int:
    """CPU threads of one of `count` workers that share this machine."""
    return max(1, device.default_threads() // max(1, count))


def slots_each() -> dict[str, int]:
    """The UUID of each GPU, and how many slots its worker has, of workers that share this machine's processors."""
    found = gpus()
    cores = device.cores() // max(1, len(found))
    return {gpu.uuid: slots.automatic_count(gpu_memory_bytes=gpu.memory_bytes, cores=cores) for gpu in found}


def run(commands: Mapping[str, Sequence[str]]) -> int:
    """Run a command for each device until all have ended; the highest exit status, 1 if there is no device.

    SIGTERM and SIGINT are passed on. A worker that ends early, or cannot be started, leaves the others at work.
    """
    if not commands:
        logger.error(
            "no GPU answers on this machine: `layersweep worker --doctor` says what is missing, "
            "and `layersweep worker` without --all-devices works on the CPU"
        )
        return 1
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    statuses: dict[str, int] = {}
    try:
        for name, command in commands.items():
            if received:
                break
            try:
                # A terminal's Ctrl-C would reach a child of our own group twice, and the second one ends it at once.
                running[name] = subprocess.Popen(command, start_new_session=True)
            except OSError as failure:
                logger.error("the worker of %s cannot be started: %s", name, failure)
                statuses[name] = 1
        _await(list(running.values()), received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for name, process in running.items():
        if status := process.wait():
            logger.error("the worker of %s ended with status %d", name, status)
        statuses[name] = status if status >= 0 else 128 - status
    return max(statuses.values(), default=0)


def _await(processes: Sequence[subprocess.Popen[bytes]], received: list[int]) -> None:
    """Wait until all have ended, and pass on to them each signal that is received meanwhile, once."""
    # Not `wait`: a signal that comes just before it blocks would be seen only after it.
    while any(process.poll() is None for process in processes):
        while received:
            number = received.pop(0)
            for process in processes:
                process.send_signal(number)
        time.sleep(POLL_SECONDS)
