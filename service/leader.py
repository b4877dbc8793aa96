"""Leading sweeps: who may, when a step is due, and one transaction after the other of a sweep. Knows no sampler.

The thread that does it belongs to the process; the sweeps are shared out among processes by leases with an epoch.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from service import artifacts, idempotency, leadership, queue, retention, reuse, schedules, sweeps, targets, tracing
from service.confirmation import confirmations
from service.db import Database
from service.ids import new_id
from service.leadership import Fenced
from service.led_sweep import FindSources, LedSweep, Verdict
from service.notifications import SCHEDULER, Notifications
from service.pareto import Ranking
from service.schedules import Lead, Loaded
from service.settings import Settings
from service.studies import Study

TIDY_SECONDS = 600.0
"""How often artifacts that are no longer wanted and old keys of requests are deleted."""

PRUNE_SECONDS = 86_400.0
"""How often what is too old is looked for; the first time when the process begins."""

GATHER_SECONDS = 0.03
"""How far apart a sweep's steps are where they may be: what ends meanwhile is worked in together."""

_log = logging.getLogger(__name__)


class Leader(ABC):
    """Leads sweeps: one thread of this process works in what ended and asks for more, off the event loop.

    Several processes may run one each: a sweep has one leader at a time, every write carries the leader's epoch, and
    what a former leader computed is thrown away. `step` may be called without `start`.
    """

    def __init__(self, database: Database, notifications: Notifications, settings: Settings) -> None:
        self._database = database
        self._notifications = notifications
        self._settings = settings
        self._leader_id = new_id()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._epochs: dict[str, int] = {}
        self._led: dict[str, LedSweep] = {}
        self._unresolved: dict[str, list[dict[str, Any]]] = {}
        """Sweep without a target -> the targets that were offered when it was last tried."""
        self._errors: dict[str, tuple[int, float]] = {}
        """Sweep -> how often in a row its step failed, and when to try again (monotonic clock)."""
        self._gathering: dict[str, float] = {}
        """Sweep that was worked for lately -> when its next step is due (monotonic clock)."""
        self._renewed_at = -math.inf
        self._ticked_at = -math.inf
        self._tidied_at = -math.inf
        self._pruned_at = -math.inf
        self._pruning: Iterator[object] = iter(())

    def start(self) -> None:
        """Begin to schedule in a thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step, and leave the sweeps to others."""
        self._stopping.set()
        self._notifications.publish(SCHEDULER)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._epochs.clear()
            self._led.clear()
            self._database.write(lambda session: leadership.release(session, self._leader_id))

    def step(self, sweep_id: str) -> bool:
        """Do all that can be done for one sweep now; False where there was nothing, or another process leads it."""
        with self._lock:
            worked, again = False, True
            while again:
                wrote, again = self._advance(sweep_id)
                worked |= wrote
            return worked

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            since = self._notifications.version(SCHEDULER)
            again = False
            try:
                again = self.look_around()
            except Exception:  # noqa: BLE001 - logged
                # The database may be away: nothing is lost by trying again.
                _log.exception("the scheduler could not look around")
            if again or self._stopping.is_set():
                continue
            if self._gathering:
                self._stopping.wait(GATHER_SECONDS)
                continue
            self._notifications.wait_blocking(SCHEDULER, self._settings.scheduler_idle_seconds, since=since)

    def look_around(self) -> bool:
        """Work once for each sweep that is due; True where one has more to do."""
        self._tick()
        again = False
        leads = self._database.read(lambda session: schedules.candidates(session, self._leader_id))
        self._gathering = {lead.id: self._gathering[lead.id] for lead in leads if lead.id in self._gathering}
        for lead in leads:
            if self._stopping.is_set():
                break
            if self._is_due(lead):
                again |= self._try_advance(lead.id)
        return again

    def _tick(self) -> None:
        """What is done by the clock: leadership is renewed, lapsed trials and old keys are cleared away."""
        clock = time.monotonic()
        if clock - self._renewed_at >= self._settings.leader_seconds / 3:
            self._renewed_at = clock
            self._renew()
        if clock - self._ticked_at >= self._settings.scheduler_idle_seconds:
            self._ticked_at = clock
            self._database.write(queue.expire)
            self._database.write(confirmations.settle)
        if clock - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = clock
            self._database.write(idempotency.forget_old)
            artifacts.tidy(self._database, self._settings)
        if clock - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = clock
            self._pruning = retention.steps(self._database, self._settings)
        # A step a round: sweeps do not wait until all that is old is gone.
        next(self._pruning, None)

    def _renew(self) -> None:
        with self._lock:
            held = list(self._epochs)
            if not held:
                return
            seconds = self._settings.leader_seconds
            kept = self._database.write(lambda session: leadership.renew(session, held, self._leader_id, seconds))
            for sweep_id in set(held) - kept:
                self._forget(sweep_id)

    def _is_due(self, lead: Lead) -> bool:
        _, not_before = self._errors.get(lead.id, (0, -math.inf))
        clock = time.monotonic()
        if clock < not_before:
            return False
        led = self._led.get(lead.id)
        if led is None or lead.overdue or lead.event_counter > led.read_sequence:
            return clock >= self._gathering.get(lead.id, -math.inf)
        self._gathering.pop(lead.id, None)
        return False

    def _try_advance(self, sweep_id: str) -> bool:
        try:
            with self._lock:
                _, again = self._advance(sweep_id)
        except Exception as error:  # noqa: BLE001 - logged and shown, and the other sweeps go on
            self._stumble(sweep_id, error)
            return False
        if sweep_id in self._errors:
            del self._errors[sweep_id]
            self._database.write(lambda session: schedules.store_trouble(session, sweep_id, None))
        return again

    def _stumble(self, sweep_id: str, error: Exception) -> None:
        """Try the sweep again later, less and less often, and say so where its users look."""
        failures = self._errors.get(sweep_id, (0, 0.0))[0] + 1
        self._errors[sweep_id] = (failures, time.monotonic() + min(60.0, 2.0**failures))
        _log.exception("sweep %s could not be scheduled, %d times in a row", sweep_id, failures, exc_info=error)
        trouble = f"{schedules.TROUBLE} {failures} times in a row and is tried again: {type(error).__name__}: {error}"
        self._database.write(lambda session: schedules.store_trouble(session, sweep_id, trouble[:1000]))

    # --- one sweep ----------------------------------------------------------------------------------------------------

    def _advance(self, sweep_id: str) -> tuple[bool, bool]:
        """One transaction's work for a sweep. Returns whether something was written, and whether to look again."""
        try:
            with tracing.span("sweep.advance", **{"layersweep.sweep": sweep_id}):
                led = self._lead(sweep_id)
                return (False, False) if led is None else self._work(sweep_id, led)
        except Fenced:
            self._forget(sweep_id)
            return False, False
        except Exception:
            # The study in memory may be ahead of the rows now.
            self._forget(sweep_id)
            raise

    def _work(self, sweep_id: str, led: LedSweep) -> tuple[bool, bool]:
        after = led.read_sequence
        glance = self._database.read(lambda session: schedules.glance(session, sweep_id, after))
        if glance is None:
            self._forget(sweep_id)
            return False, False
        going = glance.state in sweeps.GOING and not glance.overdue
        changes = led.advance(glance.happenings, glance.sequence, going=going, find_sources=self._finder(led))
        if glance.overdue and changes.verdict is None:
            changes.verdict = Verdict("completed", "wall_seconds")
        ended = glance.state not in sweeps.GOING
        if changes.is_empty and not (ended and led.stored_sequence < changes.scheduled_sequence):
            return False, changes.unfinished
        epoch, stored = self._epochs[sweep_id], led.stored_sequence
        newest = self._database.write(lambda session: schedules.store(session, sweep_id, epoch, stored, changes))
        led.stored_sequence = changes.scheduled_sequence
        if led.gathers:
            self._gathering[sweep_id] = time.monotonic() + GATHER_SECONDS
        else:
            self._gathering.pop(sweep_id, None)
        if ended and not changes.unfinished and newest == changes.scheduled_sequence:
            # Nothing more will happen in it, unless it is extended: its study need not stay in memory.
            self._forget(sweep_id)
            return True, False
        if self.has_outgrown(led):
            # What is not yet worked in is found again by what was stored.
            self._led.pop(sweep_id)
            return True, True
        if changes.unfinished or changes.verdict is not None or newest != glance.sequence + len(changes.trials):
            return True, True
        # All that came after the glance are the events of these changes: no need to look again.
        led.read_sequence = newest
        return True, False

    def _lead(self, sweep_id: str) -> LedSweep | None:
        """The sweep in memory, built from its rows where it is not there; None where it cannot be led now."""
        if sweep_id in self._led:
            return self._led[sweep_id]
        if sweep_id not in self._epochs:
            leader, seconds = self._leader_id, self._settings.leader_seconds
            epoch = self._database.write(lambda session: leadership.acquire(session, sweep_id, leader, seconds))
            if epoch is None:
                return None
            self._epochs[sweep_id] = epoch
        if not self._has_target(sweep_id):
            return None
        attempts, lookahead = self._settings.max_attempts, self._settings.scheduler_lookahead
        loaded = self._database.read(
            lambda session: schedules.load(session, sweep_id, max_attempts=attempts, lookahead=lookahead)
        )
        led = self._led[sweep_id] = self._build(loaded)
        return led

    def _has_target(self, sweep_id: str) -> bool:
        """Whether the sweep's target is known; where it is not, look for it among the workers that are alive."""
        alive_seconds, epoch = self._settings.worker_alive_seconds, self._epochs[sweep_id]
        found = self._database.read(lambda session: schedules.find_target(session, sweep_id, alive_seconds))
        if found is None:
            return True
        if not found.going:
            self._database.write(lambda session: schedules.skip_events(session, sweep_id, epoch))
            self._forget(sweep_id)
            return False
        if self._unresolved.get(sweep_id) == found.offered:
            return False
        document = self._database.read(lambda session: schedules.parse_stored(session, sweeps.get(session, sweep_id)))
        resolution = targets.resolve(document.space, document.target_runtime, found.offered)
        if resolution.target is None:
            self._unresolved[sweep_id] = found.offered
        return self._database.write(lambda session: schedules.store_target(session, sweep_id, epoch, resolution))

    def _finder(self, led: LedSweep) -> FindSources:
        project, sweep_id = led.facts.project, led.facts.id

        def find(keys: Collection[str]) -> Sequence[reuse.Source]:
            return self._database.read(lambda session: reuse.find(session, project, keys, other_than=sweep_id))

        return find

    def _forget(self, sweep_id: str) -> None:
        self._led.pop(sweep_id, None)
        self._epochs.pop(sweep_id, None)
        self._unresolved.pop(sweep_id, None)
        self._gathering.pop(sweep_id, None)

    def _build(self, loaded: Loaded) -> LedSweep:
        """The led sweep that its rows describe."""
        ranking = Ranking(loaded.facts.goals)
        for trial_id, values in loaded.ranked:
            ranking.add(trial_id, values)
        return LedSweep(loaded.facts, loaded.history, self.make_study(loaded), ranking, loaded.attributes)

    @property
    def is_running(self) -> bool:
        """True while the thread schedules."""
        return self._thread is not None

    def has_outgrown(self, led: LedSweep) -> bool:
        """Whether the sweep's study is to be made anew from its rows, because it belongs elsewhere by now."""
        return False

    @abstractmethod
    def make_study(self, loaded: Loaded) -> Study:
        """The sweep's study, rebuilt so that it goes on as if it had never stopped."""
