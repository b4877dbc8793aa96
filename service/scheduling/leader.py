"""Leading sweeps: who may, when a step is due, and one transaction after the other of a sweep. Knows no sampler.

The sweeps are shared out among processes by leases with an epoch. In a process a thread looks for what is due, and each
step runs in a thread of its own: however long one takes, it delays no other sweep.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from service.common import tracing
from service.common.ids import new_id
from service.common.notifications import SCHEDULER, WORKERS, Notifications
from service.common.states import GOING_SWEEPS
from service.confirmation import confirmations
from service.database import outages
from service.database.models import EarlierTrial
from service.database.sessions import Database
from service.leases import queue
from service.results.pareto import Ranking
from service.scheduling import leadership, repository, reuse, scheduling_errors
from service.scheduling.device_model.gate import HardwareGate
from service.scheduling.device_model.gate_rows import load_gate
from service.scheduling.held_sweeps import HeldSweep, HeldSweeps
from service.scheduling.leadership import StaleLeaderError
from service.scheduling.leadership_renewal import Renewal
from service.scheduling.replicates.replicates import Replicates
from service.scheduling.repository import SchedulableSweep, StoredSweep
from service.scheduling.scheduling_errors import SchedulingError, scheduling_error
from service.scheduling.studies import Study
from service.scheduling.sweep_scheduler import FindSources, SweepScheduler
from service.settings import Settings
from service.sweeps import slot_shares, sweeps, targets, transfer

BATCH_SECONDS = 0.25
"""How far apart a sweep's steps are if they may be, unless a worker waits for a trial: what ends meanwhile is worked
in together."""
SHARES_SECONDS = 0.25
"""How far apart a busy process looks at the workers and at who shares their slots; an idle one looks whenever it looks
around."""
STEPS_AT_ONCE = 4
"""Sweeps that are worked for at one time in a process."""
MOST_HUNG_STEPS = 3
"""Steps of a sweep that may hang in a process: then it leads that sweep no more, and another one may."""
QUICK_STOP_SECONDS, STOP_SECONDS = 2.0, 30.0
"""How long a stop waits for the steps that run: before they are interrupted, and then."""

_log = logging.getLogger(__name__)


class Leader(ABC):
    """Leads sweeps: works in what ended and asks for more, off the event loop.

    Several processes may run one each: a sweep has one leader at a time, every write carries the leader's epoch, and
    what a former leader computed is thrown away. `step` may be called without `start`.
    """

    def __init__(self, database: Database, notifications: Notifications, settings: Settings) -> None:
        self._database = database
        self._notifications = notifications
        self._settings = settings
        self._leader_id = new_id()
        self._held = HeldSweeps()
        self._renewal = Renewal(database, settings, self._leader_id, self._held, self._give_up)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._steps: dict[threading.Thread, HeldSweep] = {}
        """The threads in which a step runs, but for those that hang."""
        self._hung: dict[str, int] = {}
        """Sweep -> how many of its steps hang in this process."""
        self._steps_lock = threading.Lock()
        self._is_full = False
        """A sweep that is due waits until a step of another one ends."""
        self._ticked_at = -math.inf
        self._shared_at = -math.inf

    def start(self) -> None:
        """Begin to schedule in threads."""
        self._stopping.clear()
        self._renewal.start()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the steps that run, and leave the sweeps to others."""
        self._stopping.set()
        self._notifications.publish([SCHEDULER, WORKERS])
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._join_steps(QUICK_STOP_SECONDS)
        self.interrupt()
        self._join_steps(STOP_SECONDS)
        self._renewal.stop()
        self._held.clear()
        self._database.write(lambda session: leadership.release(session, self._leader_id))

    def step(self, sweep_id: str) -> bool:
        """Do all that can be done for one sweep now; False if there was nothing, or another process leads it."""
        held = self._held.of(sweep_id)
        held.is_outdated = True
        worked, again = False, True
        while again:
            wrote, again = self._advance(held)
            worked |= wrote
        return worked

    def discover_sweeps(self) -> bool:
        """Work once for each sweep that is due, in this thread; True if one has more to do."""
        self._tick()
        self._shared_at = -math.inf
        again = False
        for held in self._due():
            if self._stopping.is_set():
                break
            self._try_advance(held)
            again |= held.has_more
        return again

    # --- the threads --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            since, waiting_since = self._notifications.version(SCHEDULER), self._notifications.version(WORKERS)
            try:
                self._tick()
                self._begin_steps()
            except Exception as error:  # noqa: BLE001 - logged
                # The database may be away: nothing is lost by trying again.
                outages.log(_log, "the scheduler could not look around", error)
            if self._held.batching():
                if self._notifications.wait_blocking(WORKERS, BATCH_SECONDS, since=waiting_since):
                    self._held.end_batches()
            elif not self._stopping.is_set():
                self._notifications.wait_blocking(SCHEDULER, self._settings.scheduler_idle_seconds, since=since)

    def _begin_steps(self) -> None:
        """Begin a step of each sweep that is due, as many as may run at one time."""
        self._is_full = False
        for held in self._due():
            with self._steps_lock:
                stepping = {each.id for each in self._steps.values()}
                if held.id in stepping:
                    held.is_wanted = True
                    continue
                if len(stepping) >= STEPS_AT_ONCE:
                    self._is_full = True
                    break
                thread = threading.Thread(target=self._run_step, args=(held,), name=f"step {held.id}", daemon=True)
                # Not before it runs: if the system has no thread left, the sweep is tried again.
                thread.start()
                self._steps[thread] = held

    def _run_step(self, held: HeldSweep) -> None:
        held.is_wanted, held.stepped_at = False, time.monotonic()
        try:
            self._try_advance(held)
        finally:
            with self._steps_lock:
                if self._steps.pop(threading.current_thread(), None) is None:
                    # It was given up and has come back after all.
                    self._hung[held.id] -= 1
            if held.has_more or held.is_wanted or held.batches_until is not None or self._is_full:
                self._notifications.publish(SCHEDULER)

    def _join_steps(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in list(self._steps):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _due(self) -> list[HeldSweep]:
        """The sweeps that are due, those first that have waited longest."""
        schedulable, outdated = self._database.read(self._look)
        for sweep_id in outdated:
            self._held.of(sweep_id).is_outdated = True
        self._held.keep({each.id for each in schedulable})
        due = [held for each in schedulable if self._is_due(each, held := self._held.of(each.id))]
        return sorted(due, key=lambda held: held.stepped_at)

    def _look(self, session: Session) -> tuple[list[SchedulableSweep], set[str]]:
        """The sweeps that this process may lead, and those whose share of the slots has changed."""
        schedulable = repository.schedulable(session, self._leader_id)
        clock = time.monotonic()
        if clock - self._shared_at < SHARES_SECONDS:
            return schedulable, set()
        self._shared_at = clock
        return schedulable, slot_shares.outdated(session, self._settings.worker_alive_seconds)

    def _is_due(self, sweep: SchedulableSweep, held: HeldSweep) -> bool:
        clock = time.monotonic()
        if clock < held.not_before or self._hung.get(sweep.id, 0) >= MOST_HUNG_STEPS:
            return False
        scheduler = held.scheduler
        has_news = (
            sweep.overdue or held.is_outdated or sweep.event_counter > scheduler.read_sequence if scheduler else True
        )
        if held.has_more or has_news:
            return held.batches_until is None or clock >= held.batches_until
        held.batches_until = None
        return False

    def _tick(self) -> None:
        """What is done by the clock: trials whose lease has lapsed too often end, so do confirmations, and sweeps say
        that their workers have been upgraded."""
        clock = time.monotonic()
        if clock - self._ticked_at >= self._settings.scheduler_idle_seconds:
            self._ticked_at = clock
            self._database.write(queue.expire)
            self._database.write(confirmations.end_finished)
            alive_seconds = self._settings.worker_alive_seconds
            self._database.write(lambda session: targets.explain_missing_workers(session, alive_seconds))

    def _give_up(self, held: HeldSweep) -> None:
        """Leave a step that hangs to itself: its sweep goes on elsewhere, or here after a while."""
        with self._steps_lock:
            thread = next((thread for thread, of in self._steps.items() if of is held), None)
            if thread is None:
                # It has ended in this moment.
                return
            del self._steps[thread]
            self._hung[held.id] = self._hung.get(held.id, 0) + 1
        # Another process comes first: it may not hang.
        later = time.monotonic() + max(2 * self._settings.leader_seconds, _pause(held.failures + 1))
        self._held.replace(held, not_before=later, failures=held.failures + 1)
        seconds = self._settings.step_seconds
        _log.error("a step of sweep %s has shown no progress for %.0f seconds: it is left to itself", held.id, seconds)
        self._store_error(held.id, scheduling_error(scheduling_errors.STEP_TIMEOUT, held.failures + 1))
        self._notifications.publish(SCHEDULER)

    def _try_advance(self, held: HeldSweep) -> None:
        try:
            self._advance(held)
        except Exception as error:  # noqa: BLE001 - logged and shown, and the other sweeps go on
            if not self._stopping.is_set() and self._held.find(held.id) is held:
                self._retry_later(held, error)
            return
        if held.failures:
            held.failures = 0
            self._store_error(held.id, None)

    def _retry_later(self, held: HeldSweep, error: Exception) -> None:
        """Try the sweep again later, less and less often, and say so where its users look."""
        held.failures += 1
        held.not_before = time.monotonic() + _pause(held.failures)
        outages.log(_log, f"sweep {held.id} could not be scheduled, {held.failures} times in a row", error)
        self._store_error(held.id, scheduling_error(scheduling_errors.cause_of(error), held.failures))

    def _store_error(self, sweep_id: str, error: SchedulingError | None) -> None:
        try:
            self._database.write(lambda session: scheduling_errors.store(session, sweep_id, error))
        except Exception as refusal:  # noqa: BLE001 - logged
            outages.log(_log, f"sweep {sweep_id}: what keeps it from going on could not be stored", refusal)

    # --- one sweep ----------------------------------------------------------------------------------------------------

    def _advance(self, held: HeldSweep) -> tuple[bool, bool]:
        """One transaction's work for a sweep. Returns whether something was written, and whether to look again."""
        with held.lock:
            held.progressed()
            try:
                with tracing.span("sweep.advance", **{"layersweep.sweep": held.id}):
                    scheduler = self._lead(held)
                    wrote, held.has_more = (False, False) if scheduler is None else self._work(held, scheduler)
            except StaleLeaderError:
                held.forget()
                return False, False
            except Exception:
                # The study in memory may be ahead of the rows now.
                held.forget()
                raise
            finally:
                held.progressed_at = None
            return wrote, held.has_more

    def _work(self, held: HeldSweep, scheduler: SweepScheduler) -> tuple[bool, bool]:
        sweep_id, after, epoch = held.id, scheduler.read_sequence, held.epoch
        assert epoch is not None, "a sweep is led under an epoch"
        if held.is_outdated and scheduler.shares_slots:
            alive_seconds = self._settings.worker_alive_seconds
            self._database.write(lambda session: slot_shares.update(session, sweep_id, epoch, alive_seconds))
        held.is_outdated = False
        update = self._database.read(lambda session: repository.read_update(session, sweep_id, after))
        if update is None:
            held.forget()
            return False, False
        going = update.state in GOING_SWEEPS and update.used_up is None
        changes = scheduler.advance(update.events, update.sequence, going=going, find_sources=self._finder(scheduler))
        if update.used_up is not None and changes.termination is None:
            changes.termination = scheduler.end(update.used_up)
        ended = update.state not in GOING_SWEEPS
        # What was looked at is stored too if nothing came of it: an ending must not count as waiting.
        is_owed = (ended or update.events) and scheduler.stored_sequence < changes.scheduled_sequence
        if changes.is_empty and not is_owed:
            return False, changes.unfinished
        stored = scheduler.stored_sequence
        newest = self._database.write(lambda session: repository.store(session, sweep_id, epoch, stored, changes))
        scheduler.stored_sequence = changes.scheduled_sequence
        held.batches_until = time.monotonic() + BATCH_SECONDS if scheduler.batches else None
        if ended and not changes.unfinished and newest == changes.scheduled_sequence:
            # Nothing more will happen in it, unless it is extended: its study need not stay in memory.
            held.forget()
            return True, False
        if self.has_outgrown(scheduler):
            # What is not yet worked in is found again by what was stored.
            held.scheduler = None
            return True, True
        if changes.unfinished or changes.termination is not None or newest != update.sequence + changes.event_count:
            return True, True
        # All that came after it was read are the events of these changes: no need to look again.
        scheduler.read_sequence = newest
        return True, False

    def _lead(self, held: HeldSweep) -> SweepScheduler | None:
        """The sweep's scheduler, built from its rows if it is not there; None if it cannot be led now."""
        if held.scheduler is not None and held.epoch is not None:
            return held.scheduler
        sweep_id = held.id
        if held.epoch is None:
            leader, seconds = self._leader_id, self._settings.leader_seconds
            epoch = self._database.write(lambda session: leadership.acquire(session, sweep_id, leader, seconds))
            if epoch is None:
                return None
            held.epoch = epoch
        if not self._has_target(held, held.epoch):
            return None
        attempts, lookahead = self._settings.max_attempts, self._settings.scheduler_lookahead
        loaded = self._database.read(
            lambda session: repository.load(session, sweep_id, max_attempts=attempts, lookahead=lookahead)
        )
        held.progressed()
        facts, history, attributes = loaded.facts, loaded.history, loaded.attributes
        gate = self._database.read(lambda session: load_gate(session, facts, history, attributes))
        held.scheduler = self._build(held, loaded, gate)
        return held.scheduler

    def _has_target(self, held: HeldSweep, epoch: int) -> bool:
        """Whether the sweep's target is known; if it is not, look for it among the workers that are alive."""
        alive_seconds, sweep_id = self._settings.worker_alive_seconds, held.id
        found = self._database.read(lambda session: repository.find_target(session, sweep_id, alive_seconds))
        if found is None:
            return True
        if not found.going:
            self._database.write(lambda session: repository.skip_events(session, sweep_id, epoch))
            held.forget()
            return False
        if held.offered == found.offered:
            return False
        document = self._database.read(lambda session: repository.parse_stored(session, sweeps.get(session, sweep_id)))
        resolution = targets.resolve(document.space, document.target_runtime, document.target_labels, found.offered)
        held.offered = found.offered if resolution.target is None else None
        target = resolution.target
        earlier: list[EarlierTrial] = []
        if target is not None and document.search.get("transfer"):
            earlier = self._database.read(lambda session: transfer.choose(session, sweep_id, document, target))

        def store(session: Session) -> bool:
            is_stored = repository.store_target(session, sweep_id, epoch, resolution)
            if is_stored and document.search.get("transfer"):
                transfer.keep(session, sweep_id, earlier)
            return is_stored

        return self._database.write(store)

    def _finder(self, scheduler: SweepScheduler) -> FindSources:
        project, sweep_id = scheduler.facts.project, scheduler.facts.id

        def find(keys: Collection[str]) -> Sequence[reuse.Source]:
            return self._database.read(lambda session: reuse.find(session, project, keys, other_than=sweep_id))

        return find

    def _build(self, held: HeldSweep, loaded: StoredSweep, gate: HardwareGate) -> SweepScheduler:
        """The scheduler of the sweep that these rows describe."""
        ranking = Ranking(loaded.facts.goals)
        for trial_id, values in loaded.ranked:
            ranking.add(trial_id, values)
        study = self.make_study(loaded)
        facts = loaded.facts
        replicates = Replicates(facts.document, facts.sampler, loaded.replicates)
        return SweepScheduler(
            facts, loaded.history, study, ranking, replicates, gate, loaded.attributes, held.progressed
        )

    @property
    def is_running(self) -> bool:
        """True while threads schedule."""
        return self._thread is not None

    @abstractmethod
    def interrupt(self) -> None:
        """End what a step may wait for, because the process stops."""

    def has_outgrown(self, scheduler: SweepScheduler) -> bool:
        """Whether the sweep's study is to be made anew from its rows, because it belongs elsewhere by now."""
        return False

    @abstractmethod
    def make_study(self, loaded: StoredSweep) -> Study:
        """The sweep's study, rebuilt so that it goes on as if it had never stopped."""


def _pause(failures: int) -> float:
    """Seconds until a sweep is tried again whose step failed so often in a row."""
    return min(60.0, 2.0**failures)
