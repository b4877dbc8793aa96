"""A Ray cluster as the controller of a fleet sees it. The calls of Ray are made in a child process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from layers.labels import shown_labels
from workers.engine.protocol import Verb
from workers.fleet.messages import DRAIN, MEMBERS, REQUEST_MACHINES, START, Member, WorkerOrder
from workers.fleet.plan import Fleet, Kind, kind_of
from workers.interruption import Interruption
from workers.processes.child import Child, ChildError

CALL_SECONDS = 60.0
"""Longer than Ray tries to reach a head again before it ends the process."""
CLOSE_SECONDS = 15.0


Answer = TypeVar("Answer")


class ClusterError(Exception):
    """The cluster did not answer, or refused."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How the workers of a fleet are started."""

    server: str
    token: str | None
    idle_exit_seconds: float
    cpus: int | None = None
    """Processors of one worker. None: 1 on a CPU; on a GPU its part of the machine's, and none are reserved."""
    accelerator: str | None = None
    """Ray's name of the GPU model that they need, as H100; None: whichever."""


class RayCluster:
    """Finds, starts and drains the workers of a fleet. To be used from one thread."""

    def __init__(self, address: str, fleet: Fleet, options: WorkerOptions, interruption: Interruption) -> None:
        """`interruption`: ends whatever waits for the cluster."""
        self._address = address
        self._fleet = fleet
        self._options = options
        self._interruption = interruption
        self._child: Child | None = None

    def members(self) -> list[Member]:
        """The fleet's workers that are there or are to come. This and the others raise ClusterError."""
        return self._call(MEMBERS, {}, interruption=self._interruption)["members"]

    def start(self, name: str) -> None:
        """Start a worker as soon as there is a machine for it, unless there is one of this name."""
        kind = kind_of(name)
        request = {"name": name, "order": self._order(name, kind), "resources": self._resources(kind)}
        self._call(START, request, interruption=self._interruption)

    def drain(self, name: str) -> None:
        """Have a worker give back what it executes and leave."""
        self._call(DRAIN, {"name": name}, interruption=self._interruption)

    def request_machines(self, wanted: Mapping[Kind, int]) -> None:
        """Ask for machines with room for so many workers at once; fewer than before: for no more than these."""
        machines = [self._resources(kind) for kind, count in wanted.items() for _ in range(count)]
        self._call(REQUEST_MACHINES, {"machines": machines}, interruption=self._interruption)

    def close(self) -> None:
        """Ask for no more machines and leave the cluster; the workers stay."""
        with contextlib.suppress(ClusterError):
            self._call(REQUEST_MACHINES, {"machines": []}, seconds=CLOSE_SECONDS, interruption=None)
        if self._child is not None:
            self._child.close()
            self._child = None

    def _resources(self, kind: Kind) -> Sequence[float | str | None]:
        """As `ray_calls.Resources` has them."""
        if kind == "gpu":
            return (self._options.cpus or 0, 1, self._options.accelerator)
        return (self._options.cpus or 1, 0, None)

    def _order(self, name: str, kind: Kind) -> WorkerOrder:
        options, fleet = self._options, self._fleet
        # 0: of the GPUs that Ray lets its process see, which is one.
        given = {
            "--server": options.server,
            "--name": fleet.worker_name(name),
            "--device": "0" if kind == "gpu" else "cpu",
            "--idle-exit-seconds": f"{options.idle_exit_seconds:g}",
        }
        if fleet.labels:
            given["--labels"] = shown_labels(fleet.labels)
        if fleet.slots is not None:
            given["--slots"] = str(fleet.slots)
        shares_machine = kind == "gpu" and options.cpus is None
        if not shares_machine:
            given["--threads"] = str(options.cpus or 1)
        return {
            "arguments": [part for option in given.items() for part in option],
            "environment": {} if options.token is None else {"LAYERSWEEP_TOKEN": options.token},
            "shares_machine": shares_machine,
        }

    def _call(
        self,
        verb: Verb[Answer],
        arguments: Mapping[str, object],
        *,
        seconds: float = CALL_SECONDS,
        interruption: Interruption | None,
    ) -> Answer:
        try:
            if self._child is None or not self._child.alive():
                self._child = self._started()
            return self._child.request(verb, arguments, timeout_seconds=seconds, interruption=interruption)
        except (ChildError, OSError) as failure:
            self._leave()
            raise ClusterError(f"Ray at {self._address}: {failure}") from failure

    def _started(self) -> Child:
        own = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        command = [sys.executable, "-m", "workers.fleet.ray_child"]
        command += ["--address", self._address, "--namespace", self._fleet.name]
        return Child(command, name="Ray", env=own)

    def _leave(self) -> None:
        """End a child that may have lost the cluster; the next call starts another."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                self._child.kill()
            self._child = None
