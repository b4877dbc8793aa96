"""Validating the documents of requests so that nobody else waits for it: small ones here, large ones in a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from anyio import to_thread

from layers.space.feasibility import FeasibilityReport, expected_seconds, measure_feasibility
from service.database.sessions import Database
from service.errors import CallerGoneError
from service.sweeps.drafts import NO_STARTS, Draft, Given, Starts, ValidatedDocument, drafted
from service.sweeps.feasibility.processes import FeasibilityProcesses

SMALL_SECONDS = 0.5
"""Up to here a measurement of feasibility is made in a thread: a process would save nobody anything."""
AT_A_TIME = 2
"""Documents that are read and small spaces that are measured in threads of their own; others wait, in order."""
LOOK_SECONDS = 0.25
"""How often a request is asked whether its caller is still there."""


class Validation:
    """What one process validates. One event loop uses it."""

    def __init__(self, database: Database, processes: int) -> None:
        self._database = database
        self._limiter = anyio.CapacityLimiter(AT_A_TIME)
        self._processes = FeasibilityProcesses(processes)

    async def prepare(
        self,
        document: Given,
        project: str,
        is_gone: Callable[[], Awaitable[bool]],
        starts: Starts = NO_STARTS,
    ) -> ValidatedDocument:
        """As `drafts.prepare`, with `starts` as in `drafted`.

        Raises InvalidDocumentError, UnavailableError, and CallerGoneError as soon as `is_gone` says so.
        """
        draft = await to_thread.run_sync(
            lambda: drafted(self._database, document, project=project, starts=starts), limiter=self._limiter
        )
        feasibility = asyncio.ensure_future(self._measured(draft))
        try:
            while not (await asyncio.wait({feasibility}, timeout=LOOK_SECONDS))[0]:
                if await is_gone():
                    raise CallerGoneError("nobody waits for the answer any more")
        finally:
            feasibility.cancel()
        return draft.prepared(feasibility.result())

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()

    async def _measured(self, draft: Draft) -> FeasibilityReport:
        if expected_seconds(draft.space) > SMALL_SECONDS:
            return await self._processes.measure(draft.space)
        return await to_thread.run_sync(measure_feasibility, draft.space, limiter=self._limiter)
