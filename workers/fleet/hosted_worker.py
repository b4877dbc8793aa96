"""A `layersweep worker` that another process hosts: started again while it fails, until it ends by itself or drains."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from layersweep.retries import Backoff
from workers import slots
from workers.devices import device
from workers.engine.nvml import gpus

logger = logging.getLogger("layersweep.fleet")

ROOT = Path(__file__).resolve().parents[2]
"""Where `python -m layersweep` finds its modules."""
FAILED = Backoff(first_seconds=5.0, most_seconds=300.0)
"""Between the starts of a worker that ends with another status than 0: a wrong token or a missing library stays so."""


def worker_command(arguments: Sequence[str]) -> list[str]:
    """`layersweep worker` with these arguments, by the interpreter that runs this."""
    return [sys.executable, "-m", "layersweep", "worker", *arguments]


def share_of_machine(gpu_count: int) -> list[str]:
    """Options of a worker that has one of a machine's GPUs and its part of the processors; later ones prevail."""
    cores = max(1, device.cores() // max(1, gpu_count))
    options = ["--threads", str(cores)]
    if found := gpus():
        options += ["--slots", str(slots.automatic_count(gpu_memory_bytes=found[0].memory_bytes, cores=cores))]
    return options


class HostedWorker:
    """One worker at a time, in processes of its own: SIGTERM, slots and engine children are as everywhere."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_left: Callable[[], None],
        *,
        failed: Backoff = FAILED,
    ) -> None:
        """Start it. `command`: the worker's; `environment`: added to this process's; `on_left`: called from a thread
        when the worker has ended with status 0, because it was idle or drained, and is not started again."""
        self._command = [sys.executable, "-m", "workers.fleet.worker_guard", *command]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._environment = {**os.environ, **environment, "PYTHONPATH": path}
        self._on_left = on_left
        self._failed = failed
        self._drained = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ties the guard's life to the thread that starts it: this one, which lives as long as its worker.
        threading.Thread(target=self._host, name="hosted worker", daemon=True).start()

    def drain(self) -> None:
        """Have it give back what it executes and end; `on_left` says when it has."""
        with self._lock:
            self._drained.set()
            if self._process is not None:
                self._process.terminate()

    @property
    def pid(self) -> int | None:
        """Of the guard, whose child the worker is; None between two workers."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def _host(self) -> None:
        for seconds in self._failed:
            try:
                status = self._run()
            except OSError as failure:
                what = f"could not be started: {failure}"
            else:
                if status == 0:
                    break
                what = f"ended with status {status}"
            if self._drained.is_set():
                break
            logger.error("the worker %s; starting it again in %.0f s", what, seconds)
            if self._drained.wait(seconds):
                break
        self._on_left()

    def _run(self) -> int:
        """Run it until its end; its exit status, 0 if it was not started because it is drained. Raises OSError if
        it cannot be started."""
        ended, worker_s_end = os.pipe()
        # A guard ends before its worker has drained. The device is free only when the pipe has ended.
        with os.fdopen(ended, "rb") as pipe:
            with self._lock, os.fdopen(worker_s_end, "wb"):
                if self._drained.is_set():
                    return 0
                self._process = process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    pass_fds=[worker_s_end],
                    # A session of its own: signals to the host's group are not meant for it.
                    start_new_session=True,
                )
            status = process.wait()
            with self._lock:
                self._process = None
            pipe.read()
        return status
