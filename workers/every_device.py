"""A worker for each device of a machine, each in its own process: started, stopped and waited for together."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from workers import device, slots
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
    """Run a command for each device until all have ended; the highest exit status, 1 where there is no device.

    SIGTERM and SIGINT are passed on. A worker that ends early leaves the others at work.
    """
    if not commands:
        logger.error(
            "no GPU answers on this machine: `layersweep worker --doctor` says what is missing, "
            "and `layersweep worker` without --all-devices works on the CPU"
        )
        return 1
    running: dict[str, subprocess.Popen[bytes]] = {}
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in running.values():
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for name, command in commands.items():
            if received:
                break
            # A terminal's Ctrl-C would reach a child of our own group twice, and the second one ends it at once.
            running[name] = process = subprocess.Popen(command, start_new_session=True)
            if received:
                process.send_signal(received[0])
        # Not `wait`: a signal that comes just before it blocks would be seen only after it.
        while any(process.poll() is None for process in running.values()):
            time.sleep(POLL_SECONDS)
        statuses = {name: process.wait() for name, process in running.items()}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for name, status in statuses.items():
        if status:
            logger.error("the worker of %s ended with status %d", name, status)
    return max((status if status >= 0 else 128 - status for status in statuses.values()), default=0)
