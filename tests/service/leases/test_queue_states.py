"""The queue under any order of calls by two workers, also at the same time: its invariants always hold.

Calls overlap as they would in two API processes: each has a database of its own, the second call begins while the
first one's transaction is open, and that one ends (or is undone) when the second is done or waits for it. Which of them
it is depends on the database alone, not on the speed of threads: a failure comes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from service.common.states import ENDED_TRIALS
from service.database.models import Attempt, Event, Sweep, Trial
from service.database.sessions import Database
from service.errors import LeaseLostError
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.leases.row_locks import ChangesTrial, Claims
from tests.service.lock_races import WAITS
from tests.service.rows import Rows

PARALLEL = 2
WORKERS = st.sampled_from([0, 1])
OUTCOMES = st.sampled_from(["complete", "infeasible", "pruned", "failed"])

Write = Callable[[Session], Any]


class QueueMachine(RuleBasedStateMachine):
    """Each worker remembers every lease that it was given, and uses old ones as readily as new ones."""

    def __init__(self, database: Database, other: Database, rows: Rows) -> None:
        super().__init__()
        self.database = database
        self.other = other
        self.rows = rows
        self.sweep: str = rows.sweep(3, parallel=PARALLEL)
        self.workers: list[str] = [rows.worker(), rows.worker()]
        self.leases: list[lease_schemas.Lease] = []
        self.ended: dict[str, str] = {}

    def teardown(self) -> None:
        """Leave nothing that the next example's workers could claim."""
        self.database.write(lambda session: queue.cancel_open(session, self.sweep, "the example is over"))
        self.rows.update(Sweep, self.sweep, state="completed")

    def holds(self, lease: lease_schemas.Lease) -> bool:
        trial = self.rows.trial(lease.trial)
        return trial.state == "running" and trial.attempt == lease.attempt

    def call(self, index: int, what: Callable[[Session, lease_schemas.Lease], Any]) -> None:
        """Use a lease: it works if and only if it is the trial's current one, or tells of a cancelled attempt."""
        if not self.leases:
            return
        lease = self.leases[index % len(self.leases)]
        held = self.holds(lease)
        try:
            answer = self.database.submit(lambda session: what(session, lease), needs=ChangesTrial(lease.trial)).result(
                30
            )
        except LeaseLostError:
            assert not held
        else:
            assert held or getattr(answer, "action", None) == "cancel" or getattr(answer, "state", None) in ENDED_TRIALS

    @rule(worker=WORKERS)
    def claim(self, worker: int) -> None:
        worker_id = self.workers[worker]
        claimed = self.database.submit(lambda session: queue.claim(session, worker_id, 30), needs=Claims(worker_id))
        lease = claimed.result(30)
        if lease is not None:
            assert all((lease.trial, lease.attempt) != (old.trial, old.attempt) for old in self.leases)
            assert self.holds(lease)
            self.leases.append(lease)

    @rule(index=st.integers(0, 20))
    def heartbeat(self, index: int) -> None:
        self.call(index, lambda session, lease: holders.heartbeat(session, lease.trial, lease.attempt, 30))

    @rule(index=st.integers(0, 20), step=st.integers(0, 3))
    def report(self, index: int, step: int) -> None:
        body = lease_schemas.LeaseReport(phase="train", losses=[lease_schemas.Losses(step=step, training_loss=1.0)])
        self.call(index, lambda session, lease: holders.report(session, lease.trial, lease.attempt, body, 30))

    @rule(index=st.integers(0, 20), outcome=OUTCOMES)
    def finish(self, index: int, outcome: Any) -> None:
        body = lease_schemas.LeaseFinish(outcome=outcome, reason="a test", metrics={"latency_ms_p50": 1.0})
        self.call(index, lambda session, lease: holders.finish(session, lease.trial, lease.attempt, body))

    @rule(index=st.integers(0, 20), charge=st.booleans())
    def release(self, index: int, charge: bool) -> None:
        body = lease_schemas.LeaseRelease(reason="the worker drains", charge=charge)
        self.call(index, lambda session, lease: holders.release(session, lease.trial, lease.attempt, body))

    @rule(index=st.integers(0, 20))
    def lapse(self, index: int) -> None:
        if self.leases and self.holds(lease := self.leases[index % len(self.leases)]):
            self.rows.lapse(lease.trial)

    @rule()
    def expire(self) -> None:
        self.database.write(queue.expire)

    @rule()
    def add(self) -> None:
        self.rows.queue(self.sweep, 1)

    @rule()
    def cancel(self) -> None:
        self.database.write(lambda session: queue.cancel_open(session, self.sweep, "cancelled"))

    @rule(first=st.integers(0, 199), second=st.integers(0, 199), is_undone=st.booleans())
    def overlap(self, first: int, second: int, is_undone: bool) -> None:
        """Two calls at once, each with whichever lease there is: none fails but for a lease that was lost."""
        begin, end = self.some_call(first), self.some_call(second)
        with ThreadPoolExecutor(1) as pool, Session(self.database.engine, expire_on_commit=False) as session:
            made = _unless_lost(lambda: begin(session))
            overlapping = pool.submit(_unless_lost, lambda: self.other.write(end))
            self.await_wait_of(overlapping)
            if is_undone or made is LOST:
                session.rollback()
                made = None
            else:
                session.commit()
            self.leases += [each for each in (made, overlapping.result(60)) if isinstance(each, lease_schemas.Lease)]
        assert len({(lease.trial, lease.attempt) for lease in self.leases}) == len(self.leases)

    def some_call(self, drawn: int) -> Write:
        """One of the calls that a worker, a scheduler or a user makes."""
        kind, which = drawn % 8, drawn // 8
        if kind in (0, 1) or not self.leases:
            return lambda session: queue.claim(session, self.workers[kind % 2], 30)
        if kind == 2:
            return lambda session: queue.cancel_open(session, self.sweep, "cancelled")
        if kind == 3:
            return queue.expire
        lease = self.leases[-1 - which % min(4, len(self.leases))]
        trial, attempt = lease.trial, lease.attempt
        report = lease_schemas.LeaseReport(phase="train", losses=[lease_schemas.Losses(step=which, training_loss=1.0)])
        finish = lease_schemas.LeaseFinish(outcome="complete", metrics={"latency_ms_p50": 1.0})
        release = lease_schemas.LeaseRelease(reason="the worker drains", charge=which % 2 == 0)
        calls: list[Write] = [
            lambda session: holders.heartbeat(session, trial, attempt, 30),
            lambda session: holders.report(session, trial, attempt, report, 30),
            lambda session: holders.finish(session, trial, attempt, finish),
            lambda session: holders.release(session, trial, attempt, release),
        ]
        return calls[kind - 4]

    def await_wait_of(self, overlapping: Future[Any]) -> None:
        """Until the second call is done, or can only go on when the first one's transaction has ended."""
        if self.database.dialect == "sqlite":
            # Its transactions that write begin one after the other: there is nothing to wait for.
            return
        with self.database.engine.connect() as connection:
            while not overlapping.done() and not connection.scalar(WAITS):
                connection.rollback()

    @invariant()
    def rows_agree(self) -> None:
        self.database.read(self._check)

    def _check(self, session: Session) -> None:
        sweep = session.get_one(Sweep, self.sweep)
        trials = session.scalars(sa.select(Trial).where(Trial.sweep_id == self.sweep)).all()
        counted = Counter(trial.state for trial in trials)
        assert {state: number for state, number in sweep.counts.items() if number} == dict(counted)
        assert sweep.running_count == counted["running"] <= PARALLEL
        events = session.scalars(sa.select(Event).where(Event.sweep_id == self.sweep).order_by(Event.sequence)).all()
        assert [event.sequence for event in events] == list(range(1, sweep.event_counter + 1))
        endings = Counter(event.trial_id for event in events if event.kind == "trial.ended")
        going = {trial.id for trial in trials if trial.state == "running"}
        open_attempts = session.scalars(sa.select(Attempt.trial_id).where(Attempt.outcome.is_(None))).all()
        assert sorted(open_attempts) == sorted(going), "what runs has one open attempt, all else none"
        for trial in trials:
            ended = trial.state in ENDED_TRIALS
            assert endings[trial.id] == ended
            assert self.ended.get(trial.id, trial.state) == trial.state, "an ending is for good"
            if ended:
                self.ended[trial.id] = trial.state


LOST = object()


def _unless_lost(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except LeaseLostError:
        return LOST


def test_no_order_of_calls_breaks_the_queue(database: Database, database_url: str, make_rows: type[Rows]) -> None:
    other = Database(database_url)
    run_state_machine_as_test(
        lambda: QueueMachine(database, other, make_rows(database)),
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    other.close()
