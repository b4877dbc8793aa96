"""The other ranks of a shared engine: processes that rank 0 starts, tells what to do, and does not outlive.

A rank that ends by itself or is killed takes rank 0 with it in the same way: whoever waits for the engine learns at
once what happened, and no rank is left that waits for another on its device.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from ..protocol import RequestError
from .star import Center

Result = TypeVar("Result")

AFTER_FAILURE_SECONDS = 5.0
"""How long the others may take to answer when one rank has failed: they may wait for it in a collective."""


class Peers:
    """Ranks 1 and up, each with a device of its own."""

    def __init__(self, runtime: str, devices: Sequence[str]) -> None:
        """`devices`: of all ranks, as CUDA_VISIBLE_DEVICES names them; empty names for processes on the CPU."""
        self._controls: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._watchers: list[threading.Thread] = []
        self._is_ending = False
        sockets: list[socket.socket] = []
        for rank, device in enumerate(devices[1:], 1):
            control, peers_control = Pipe()
            data, peers_data = socket.socketpair()
            with peers_control, peers_data:
                descriptors = [peers_control.fileno(), peers_data.fileno()]
                command = [sys.executable, "-m", "workers.engine.parallel.rank", "--runtime", runtime]
                command += ["--rank", str(rank), "--ranks", str(len(devices))]
                command += ["--control-fd", str(descriptors[0]), "--data-fd", str(descriptors[1])]
                environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
                process = subprocess.Popen(command, pass_fds=descriptors, env=environment, stdin=subprocess.DEVNULL)
            self._controls.append(control)
            self._processes.append(process)
            sockets.append(data)
            watcher = threading.Thread(target=self._watch, args=(rank, process), name=f"rank {rank}", daemon=True)
            watcher.start()
            self._watchers.append(watcher)
        self.communicator = Center(sockets)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes)

    def together(self, own: Callable[[], Result], command: str, *arguments: Any) -> tuple[Result, list[Any]]:
        """Let every rank do the same; what this one found, and the others. Raises RequestError."""
        if self._is_ending:
            raise RequestError("internal", "the other ranks have ended after an error: start the engine anew")
        for control in self._controls:
            with contextlib.suppress(OSError):
                # Who has ended answers nothing, which is told then.
                control.send((command, arguments))
        try:
            found = own()
        except BaseException:
            self._settle()
            raise
        return found, self._answers()

    def end(self) -> None:
        """End the processes."""
        self._is_ending = True
        for control in self._controls:
            control.close()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(AFTER_FAILURE_SECONDS)
            process.kill()
            process.wait()

    def _answers(self) -> list[Any]:
        answers = [self._answer(rank, control) for rank, control in enumerate(self._controls, 1)]
        for answer in answers:
            if isinstance(answer, RequestError):
                raise answer
        return answers

    def _answer(self, rank: int, control: Connection) -> Any:
        try:
            kind, content = control.recv()
        except (EOFError, OSError):
            # Its watcher ends this process in the same way, which says more than an answer.
            self._watchers[rank - 1].join(AFTER_FAILURE_SECONDS)
            return RequestError("internal", f"rank {rank} does not answer")
        return content if kind == "ok" else RequestError(kind, f"rank {rank}: {content}")

    def _settle(self) -> None:
        """Take the answers of a command that failed here; end the others if they do not come."""
        for rank, control in enumerate(self._controls, 1):
            if not control.poll(AFTER_FAILURE_SECONDS):
                self.end()
                return
            self._answer(rank, control)

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if self._is_ending:
            return
        sys.stderr.write(f"rank {rank} (process {process.pid}) has ended with {code}: so does rank 0\n")
        sys.stderr.flush()
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code if code > 0 else 1)
