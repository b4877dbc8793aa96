"""Keeps as many workers on a cluster as the queue needs.

It holds nothing that is not found again: the queue and the leases are the service's, the workers are named in the
cluster. It may be killed and started anew at any time, and so may the cluster's head.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from types import FrameType
from typing import NoReturn, Protocol

from workers.fleet.messages import Member
from workers.fleet.plan import KINDS, PATIENCE_SECONDS, Fleet, Kind, Needs, Unserved, changes, needs_of, wanted_workers
from workers.fleet.ray_cluster import ClusterError, RayCluster, WorkerOptions
from workers.interruption import DrainedError, Interruption
from workers.service.client import BACKOFF, RefusedError, ServiceClient, ServiceError, TokenRefusedError
from workers.service.messages import QueueEntry, RegisteredWorker

logger = logging.getLogger("layersweep.fleet")

SILENT_SECONDS = 120.0
"""After which a worker that has not registered is told of."""
LOOK_SECONDS = 5.0
"""Between two looks at the queue."""


class Queue(Protocol):
    """What the controller asks the service."""

    def queue(self) -> list[QueueEntry]: ...
    def living_workers(self) -> list[RegisteredWorker]: ...


class Cluster(Protocol):
    """What the controller asks the engine that runs the fleet. Every call may raise ClusterError."""

    def members(self) -> list[Member]: ...
    def start(self, name: str) -> None: ...
    def drain(self, name: str) -> None: ...
    def request_machines(self, wanted: Mapping[Kind, int]) -> None: ...


class Controller:
    """Compares what is wanted with what is there, again and again."""

    def __init__(self, service: Queue, cluster: Cluster, fleet: Fleet) -> None:
        self._service = service
        self._cluster = cluster
        self._fleet = fleet
        self._unserved = Unserved()
        self._told: frozenset[Needs] = frozenset()
        self._absent_since: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}

    def step(self, now: float) -> None:
        """Look once, and start and drain what is to be; `now`: seconds of a clock that never goes back.

        Raises ServiceError and ClusterError: nothing is half done that the next step would not go on with.
        """
        entries, registered = self._service.queue(), self._service.living_workers()
        unserved = self._unserved.observe(entries, registered, self._fleet, now)
        self._tell([entry for entry in entries if needs_of(entry) in unserved - self._told])
        self._told = unserved
        wanted = wanted_workers(entries, registered, self._fleet, unserved)
        members = self._cluster.members()
        # Each time: the head may be another one that was never asked.
        self._cluster.request_machines(wanted)
        self._warn_of_silent(members, registered, now)
        start, drain, absent = changes(wanted, [member["name"] for member in members], registered, self._fleet)
        for name in start:
            logger.info("starting %s: %s", name, _shown(wanted))
            self._cluster.start(name)
        leaving = [member["name"] for member in members if member["is_leaving"]]
        for name in {*drain, *leaving, *self._absent_for_long(absent, now)}:
            logger.info("draining %s: %s", name, "its machine is leaving" if name in leaving else "it is not needed")
            self._cluster.drain(name)

    def _absent_for_long(self, absent: list[str], now: float) -> list[str]:
        """Those that a moment without trials would not explain."""
        self._absent_since = {name: self._absent_since.get(name, now) for name in absent}
        return [name for name, since in self._absent_since.items() if now - since > PATIENCE_SECONDS]

    def _warn_of_silent(self, members: list[Member], registered: list[RegisteredWorker], now: float) -> None:
        """Say once of a worker whose process runs that the service has not heard of it."""
        known = {worker["name"] for worker in registered}
        silent = {each["name"] for each in members if each["state"] == "ALIVE"}
        silent = {name for name in silent if self._fleet.worker_name(name) not in known}
        before = self._silent_since
        self._silent_since = {name: before.get(name, now) for name in silent}
        for name, since in self._silent_since.items():
            if since < now - SILENT_SECONDS <= since + LOOK_SECONDS:
                logger.warning("%s runs and has not registered for %.0f s: Ray keeps its log", name, now - since)

    def _tell(self, entries: list[QueueEntry]) -> None:
        for entry in entries:
            what = entry["target"] or entry["runtime"] or "any runtime"
            lacks = "the workers of this fleet do not serve it"
            logger.warning("no more workers for %s of %s: %s (%s)", what, entry["project"], lacks, entry["waits_for"])


def run(service: ServiceClient, address: str, fleet: Fleet, options: WorkerOptions) -> int:
    """Keep the fleet until SIGTERM or SIGINT; the exit status. The workers stay, and leave when they are idle.

    It waits for a service or a cluster that does not answer. Status 1: the service refuses to say what waits.
    """
    stopped = Interruption()
    cluster = RayCluster(address, fleet, options, stopped)
    controller = Controller(service, cluster, fleet)
    try:
        with _stopped_by_signals(stopped):
            _step_for_ever(controller, stopped, service.server)
    except DrainedError:
        logger.info("stopped: the workers stay until they are idle")
        return 0
    except (RefusedError, TokenRefusedError) as refusal:
        logger.error("%s refused to say what waits: %s: give a token with the scope read", service.server, refusal)
        return 1
    finally:
        cluster.close()
        service.close()


def _step_for_ever(controller: Controller, stopped: Interruption, server: str) -> NoReturn:
    delays = iter(backoff := replace(BACKOFF, most_seconds=30.0))
    while True:
        stopped.check()
        try:
            controller.step(time.monotonic())
        except (RefusedError, TokenRefusedError):
            raise
        except (ServiceError, ClusterError) as failure:
            delay = next(delays)
            what = "" if isinstance(failure, ClusterError) else f"the service at {server} does not answer: "
            logger.warning("%s%s; trying again in %.1f s", what, failure, delay)
        else:
            delays, delay = iter(backoff), LOOK_SECONDS
        stopped.wait(delay)


def _shown(wanted: Mapping[Kind, int]) -> str:
    return "the queue needs " + " and ".join(f"{wanted[kind]} on {kind.upper()}s" for kind in KINDS if wanted[kind])


@contextlib.contextmanager
def _stopped_by_signals(stopped: Interruption) -> Generator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set(DrainedError("the controller was asked to stop"))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
