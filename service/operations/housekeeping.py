"""What is cleared away by the clock, in a thread of its own: a store that hangs keeps no sweep from its next trial."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice

from service.database import outages
from service.database.sessions import Database
from service.http import idempotency
from service.operations import artifacts, retention
from service.settings import Settings

COLLECT_SECONDS = 600.0
"""How often artifacts that are no longer wanted and old keys of requests are deleted."""
PRUNE_SECONDS = 86_400.0
"""How often what is too old is looked for; the first time when the process begins."""
STEP_SECONDS = 1.0
"""Between two steps of pruning, so that requests are not kept waiting."""
STOP_SECONDS = 5.0
"""How long a stop waits for what is being cleared away: nothing is lost if it is cut short."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """Deletes old keys, unwanted artifacts and what `retention` says is too old."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._collects_at = -1.0
        self._prunes_at = -1.0
        self._pruning: Iterator[object] = iter(())

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            self._thread = None

    def collect_garbage(self) -> bool:
        """Do what is due by now; of what is too old one step. True if another step follows at once."""
        clock = time.monotonic()
        if clock >= self._collects_at:
            self._collects_at = clock + COLLECT_SECONDS
            self._attempt(lambda: self._database.write(idempotency.forget_old))
            self._attempt(lambda: artifacts.collect_garbage(self._database, self._settings))
        if clock >= self._prunes_at:
            self._prunes_at = clock + PRUNE_SECONDS
            self._pruning = retention.steps(self._database, self._settings)
        return self._prune()

    def _run(self) -> None:
        while True:
            again = self.collect_garbage()
            if self._stopping.wait(STEP_SECONDS if again else min(COLLECT_SECONDS, 60.0)):
                return

    def _prune(self) -> bool:
        """Delete one step more of what is too old; True if it did. After an error all begins anew, and soon."""
        found: list[object] = []
        if not self._attempt(lambda: found.extend(islice(self._pruning, 1))):
            # Nothing follows in a generator that has raised.
            self._prunes_at = self._collects_at
        return bool(found)

    def _attempt(self, work: Callable[[], object]) -> bool:
        """Do it; False if it failed, which is logged: it is done again later."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - logged
            outages.log(_log, "what is old could not be cleared away", error)
            return False
        return True
