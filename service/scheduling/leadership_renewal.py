"""Leadership of sweeps is renewed by a timer of its own, however long a step takes, as long as the step gets on.

A step that shows no progress for `step_seconds` hangs: its sweep's lease is left to end, so that another process, or
later this one, takes the sweep with a new epoch. What the step writes after all is then refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from service.database import outages
from service.database.sessions import Database
from service.scheduling import leadership
from service.scheduling.held_sweeps import HeldSweep, HeldSweeps
from service.settings import Settings

_log = logging.getLogger(__name__)


class Renewal:
    """Renews the leases of the sweeps that a process leads. Takes no lock that a step holds."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        leader_id: str,
        held: HeldSweeps,
        give_up: Callable[[HeldSweep], None],
    ) -> None:
        """`give_up` is called with each sweep whose step hangs."""
        self._database = database
        self._settings = settings
        self._leader_id = leader_id
        self._held = held
        self._give_up = give_up
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="leadership", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def renew(self) -> None:
        """Go on leading what is led, but for sweeps whose step hangs and those that another process leads by now."""
        clock = time.monotonic()
        led: dict[str, HeldSweep] = {}
        for held in self._held.led():
            since = held.progressed_at
            if since is not None and clock - since > self._settings.step_seconds:
                self._give_up(held)
            else:
                led[held.id] = held
        if not led:
            return
        ids, seconds = sorted(led), self._settings.leader_seconds
        kept = self._database.write(lambda session: leadership.renew(session, ids, self._leader_id, seconds))
        for sweep_id in led.keys() - kept:
            _forget(led[sweep_id])

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.leader_seconds / 3):
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001 - logged
                # The database may be away: leases that end meanwhile are acquired anew.
                outages.log(_log, "the leadership of sweeps could not be renewed", error)


def _forget(held: HeldSweep) -> None:
    # A step that runs finds out by itself: what it writes is refused.
    if held.lock.acquire(blocking=False):
        try:
            held.forget()
        finally:
            held.lock.release()
