"""Two API processes on one PostgreSQL lock rows in one order; a deadlock, should one come, costs a second try."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.database.access_models import IdempotencyKey
from service.database.sessions import Database
from service.leases import holders, queue, row_locks
from service.leases import schemas as lease_schemas
from service.leases.row_locks import ChangesTrial, Claims
from service.sweeps import sweeps
from tests.service.lock_races import WAITS
from tests.service.rows import Rows

FINISH = lease_schemas.LeaseFinish(outcome="complete", metrics={"latency_ms_p50": 1.0})


class Processes:
    """Two databases on one PostgreSQL, as two API processes have them."""

    def __init__(self, url: str) -> None:
        self.both = (Database(url), Database(url))
        self.rows = Rows(self.both[0])
        self._met = (threading.Event(), threading.Event())

    def sweeps_with_running_trials(self, count: int) -> list[list[str]]:
        """Of each of two sweeps, the trials that run, in the order of their ids."""
        worker = self.rows.worker()
        ids = [self.rows.sweep(count), self.rows.sweep(count)]
        leases = [self.both[0].write(lambda session: queue.claim(session, worker, 60)) for _ in range(2 * count)]
        return [sorted(lease.trial for lease in leases if lease and lease.sweep == sweep_id) for sweep_id in ids]

    def meet(self, mine: int) -> None:
        """Go on when the other one has come here too, or waits for a lock."""
        self._met[mine].set()
        deadline = time.monotonic() + 30
        # Each look in a transaction of its own: within one, the server shows what it showed first.
        with self.both[mine].engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._met[1 - mine].is_set() and not connection.execute(WAITS).scalar_one():
                assert time.monotonic() < deadline, "the other one came neither here nor to a lock"

    def await_first(self, which: int) -> None:
        """Wait until that one has come to `meet`."""
        assert self._met[which].wait(30)

    def close(self) -> None:
        for database in self.both:
            database.close()


@pytest.fixture
def processes(postgres_url: str) -> Iterator[Processes]:
    processes = Processes(postgres_url)
    yield processes
    processes.close()


def finish(session: Session, trial: str) -> None:
    holders.finish(session, trial, 1, FINISH)


def held_back(database: Database) -> Callable[[], None]:
    """Keep the writer busy, so that what is submitted now shares a transaction; returns what lets it go on."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        entered.set()
        go_on.wait(30)

    database.submit(slow)
    entered.wait(30)
    return go_on.set


def test_two_sweeps_locked_crosswise_deadlock(processes: Processes) -> None:
    (first, second), (third, fourth) = processes.sweeps_with_running_trials(2)

    def crosswise(mine: int, trials: tuple[str, str]) -> None:
        with Session(processes.both[mine].engine) as session, session.begin():
            finish(session, trials[0])
            processes.meet(mine)
            finish(session, trials[1])

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(crosswise, 0, (first, third)), threads.submit(crosswise, 1, (fourth, second))]
    errors = [error for error in (future.exception(60) for future in both) if error is not None]
    assert ["deadlock" in str(error) for error in errors] == [True]


def test_writes_that_share_a_transaction_lock_in_one_order_in_whichever_they_came(processes: Processes) -> None:
    (first, second), (third, fourth) = processes.sweeps_with_running_trials(2)
    runs: Counter[str] = Counter()

    def submitted(mine: int, trials: tuple[str, str]) -> list[Future[None]]:
        def write(session: Session, trial: str) -> None:
            runs[trial] += 1
            finish(session, trial)
            processes.meet(mine)

        database = processes.both[mine]
        go_on = held_back(database)
        futures = [
            database.submit(lambda session, trial=trial: write(session, trial), needs=ChangesTrial(trial))
            for trial in trials
        ]
        go_on()
        return futures

    for future in [*submitted(0, (first, third)), *submitted(1, (fourth, second))]:
        future.result(60)
    assert runs == dict.fromkeys((first, second, third, fourth), 1)


def test_a_write_that_would_wait_for_another_process_lets_the_others_go_first(processes: Processes) -> None:
    (of_free, _), (of_busy, _) = processes.sweeps_with_running_trials(2)
    here, there = processes.both
    busy = processes.rows.trial(of_busy).sweep_id
    with Session(there.engine) as session, session.begin():
        row_locks.take_sweeps(session, [busy])
        go_on = held_back(here)
        writes = {
            trial: here.submit(lambda session, trial=trial: finish(session, trial), needs=ChangesTrial(trial))
            for trial in (of_busy, of_free)
        }
        go_on()
        writes[of_free].result(30)
        assert not writes[of_busy].done()
    writes[of_busy].result(30)


def test_a_user_who_cancels_waits_for_no_worker_that_waits_for_the_user(processes: Processes) -> None:
    (first, second), _ = processes.sweeps_with_running_trials(2)
    runs: Counter[str] = Counter()

    def write(session: Session, trial: str) -> None:
        runs[trial] += 1
        finish(session, trial)
        processes.meet(0)

    def cancel() -> None:
        sweep_id = processes.rows.trial(first).sweep_id

        def end(session: Session) -> None:
            runs["cancel"] += 1
            sweeps.cancel(session, sweep_id)

        processes.both[1].write(end)

    workers = processes.both[0]
    go_on = held_back(workers)
    # The later trial first: in this order the locks would cross those of who cancels.
    ends = [
        workers.submit(lambda session, trial=trial: write(session, trial), needs=ChangesTrial(trial))
        for trial in (second, first)
    ]
    with ThreadPoolExecutor(1) as threads:
        go_on()
        processes.await_first(0)
        cancelled = threads.submit(cancel)
        for future in [*ends, cancelled]:
            future.result(60)
    assert runs == {first: 1, second: 1, "cancel": 1}


def test_a_claim_that_shares_its_transaction_takes_the_oldest_trial_of_any_sweep(processes: Processes) -> None:
    rows, database = processes.rows, processes.both[0]
    ids = [rows.sweep(1), rows.sweep(2)]
    worker = rows.worker()
    go_on = held_back(database)
    claims = [database.submit(lambda session: queue.claim(session, worker, 60), needs=Claims(worker)) for _ in range(4)]
    go_on()
    leases = [claim.result(30) for claim in claims]
    assert [lease.sweep if lease else None for lease in leases] == [ids[0], ids[1], ids[1], None]


def test_a_shared_write_that_did_not_say_what_it_changes_is_refused(processes: Processes) -> None:
    (trial, _), _ = processes.sweeps_with_running_trials(2)
    with pytest.raises(RuntimeError, match="beforehand"):
        processes.both[0].submit(lambda session: finish(session, trial)).result(30)


def test_a_deadlock_among_writes_that_share_transactions_is_tried_again_and_not_answered(processes: Processes) -> None:
    def insert(session: Session) -> None:
        for key in ("a", "b"):
            session.add(IdempotencyKey(key=key, project="default", request_hash="0", created_at=0.0))

    processes.both[0].write(insert)

    def refused(session: Session) -> None:
        # The others are run again, each in a savepoint of its own.
        raise LookupError

    def submitted(mine: int, keys: tuple[str, str]) -> list[Future[Any]]:
        runs = 0

        def cross(session: Session) -> None:
            nonlocal runs
            runs += 1
            for position, key in enumerate(keys):
                session.execute(sa.update(IdempotencyKey).where(IdempotencyKey.key == key).values(request_hash=keys[0]))
                if position == 0 and runs == 1:
                    processes.meet(mine)

        database = processes.both[mine]
        go_on = held_back(database)
        futures = [database.submit(refused), database.submit(cross)]
        go_on()
        return futures

    both = [submitted(0, ("a", "b")), submitted(1, ("b", "a"))]
    for refusal, crossing in both:
        assert isinstance(refusal.exception(60), LookupError)
        assert crossing.exception(60) is None


# --- a connection that is lost ----------------------------------------------------------------------------------------


def _cut(session: Session) -> None:
    session.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))


def _cut_and_go_on(session: Session) -> None:
    try:
        _cut(session)
    except OperationalError:
        # What the caller does next meets a connection that is gone.
        session.execute(sa.text("SELECT 1"))


@pytest.mark.parametrize("breaks", [_cut, _cut_and_go_on])
@pytest.mark.parametrize("how", ["read", "write", "submit", "second pass"])
def test_a_lost_connection_is_one_kind_of_error_wherever_it_is_noticed(
    processes: Processes, how: str, breaks: Callable[[Session], None]
) -> None:
    database = processes.both[0]
    if how in ("read", "write"):
        with pytest.raises(OperationalError):
            getattr(database, how)(breaks)
    else:
        go_on = held_back(database)

        def neighbour_of_it(session: Session) -> None:
            if how == "second pass":
                raise LookupError

        neighbour = database.submit(neighbour_of_it)
        lost = database.submit(breaks)
        go_on()
        assert isinstance(lost.exception(30), OperationalError)
        assert isinstance(neighbour.exception(30), OperationalError)
    assert database.read(lambda session: session.scalar(sa.text("SELECT 1"))) == 1
    assert database.submit(lambda session: session.scalar(sa.text("SELECT 1"))).result(30) == 1
