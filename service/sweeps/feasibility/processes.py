"""The feasibility of large spaces in a few processes of their own: while they compute, no request waits for the
interpreter."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from layers.space.feasibility import SECONDS, FeasibilityReport
from layers.space.space import Space
from service.errors import UnavailableError
from service.sweeps.feasibility.process import LENGTH_BYTES, packed

MOST_WAITING = 64
"""Spaces that wait for a process; more are told to come again."""
HURRIED_SECONDS = 1.0
"""How long a measurement of feasibility may take while others wait: its share then rests on fewer samples, and says
so."""
STUCK_SECONDS = 90.0
"""By the clock, after which a process is given up: a measurement of feasibility has SECONDS of a processor, which
others may use, too."""
IDLE_SECONDS = 60.0
"""After which a process that has nothing to do ends."""
TRIES = 2


class FeasibilityProcesses:
    """At most `most` processes, each started when it is needed and kept for the next. One event loop uses them.

    A measurement of feasibility that is no longer awaited (its task is cancelled) ends at once, with its process.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots = asyncio.Semaphore(most)
        self._waiting = 0
        self._idle: dict[Process, asyncio.TimerHandle] = {}

    async def measure(self, space: Space) -> FeasibilityReport:
        """Measure the feasibility of a space. Raises UnavailableError if too many wait, or no process comes to an
        end with it."""
        if self._waiting >= MOST_WAITING:
            raise _busy(f"{self._waiting} documents wait to be validated", self._waiting / self._most)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._tried(packed((space, HURRIED_SECONDS if self._waiting else SECONDS)))
        finally:
            self._slots.release()

    async def close(self) -> None:
        """End the processes that have nothing to do; the others end with the tasks that await them."""
        idle = list(self._idle)
        for process in idle:
            self._retire(process)
        await asyncio.gather(*(process.wait() for process in idle))

    async def _tried(self, request: bytes) -> FeasibilityReport:
        for _ in range(TRIES):
            try:
                return await self._answered(request)
            except TimeoutError:
                raise _busy(f"the document was not validated in {STUCK_SECONDS:.0f} seconds", STUCK_SECONDS) from None
            except (EOFError, OSError):
                # Somebody ended the process, or the system did.
                continue
        raise _busy("the process that validates documents has ended before its answer, twice", HURRIED_SECONDS)

    async def _answered(self, request: bytes) -> FeasibilityReport:
        process = await self._taken()
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                answer = await _exchange(process, request)
        except BaseException:
            # Whatever it computes, nobody waits for it any more.
            await _end(process)
            raise
        self._idle[process] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._retire, process)
        if isinstance(answer, FeasibilityReport):
            return answer
        raise RuntimeError(f"a space could not be measured: {answer}")

    async def _taken(self) -> Process:
        while self._idle:
            process, retirement = self._idle.popitem()
            retirement.cancel()
            if process.returncode is None:
                return process
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service.sweeps.feasibility.process", stdin=PIPE, stdout=PIPE, env=_environment()
        )

    def _retire(self, process: Process) -> None:
        retirement = self._idle.pop(process, None)
        if retirement is not None:
            retirement.cancel()
            assert process.stdin is not None
            # It ends when its standard input does.
            process.stdin.close()


async def _exchange(process: Process, request: bytes) -> object:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES))
    return pickle.loads(await process.stdout.readexactly(length))


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await asyncio.shield(process.wait())


def _environment() -> dict[str, str]:
    """This process's, with the places where it finds its modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}


def _busy(detail: str, seconds: float) -> UnavailableError:
    error = UnavailableError(f"{detail}: send it again in a while")
    error.retry_after_seconds = max(1, round(seconds))
    return error
