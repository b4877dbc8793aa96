"""One thread that writes for all others: what is waiting shares a transaction, and so an fsync."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.metrics import COMMIT_SECONDS, COMMITTED_WRITES
from service.database.retries import as_loss, is_connection_loss, is_retryable, retried

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Q = TypeVar("Q")

BATCH_JOBS = 256
BATCH_SECONDS = 0.05
"""A transaction takes no further job after this time: the first one waits for all."""
COMPANY_SECONDS = 0.02
"""How long it waits at most for those that it expects."""


DEFERRED = "deferred"
"""Where a session's `info` has the transaction's `Deferred`, if it has one."""

LAST = "last"
"""Where it has the `LastRows` of its function, if it shares its transaction."""

HELD = "held"
"""Where it has what `Needs.lock` returned, if it shares its transaction."""

StatementRow = Mapping[str, object]
"""The values of a statement's parameters, by their names."""

LastRows = dict[tuple[sa.Executable, str], StatementRow]
"""Statement and key -> the row that it is executed with when the transaction ends."""


class Needs(ABC):
    """The rows that a function will lock, named before it runs: those that share a transaction lock in one order."""

    @property
    @abstractmethod
    def order(self) -> str:
        """By this, functions that share a transaction run one after the other; of the same order, as they came."""

    @classmethod
    @abstractmethod
    def lock(cls, connection: sa.Connection, needs: Sequence[Needs]) -> object:
        """Lock what all of them need, sorted, waiting for whoever has it; return what was locked."""

    @classmethod
    @abstractmethod
    def lock_free(cls, connection: sa.Connection, needs: Sequence[Needs]) -> tuple[object, Collection[Needs]]:
        """The same of what nobody else has locked; return what was locked, and the needs that this covers."""


class Deferred:
    """Rows of statements that are executed together: one call of the database for the rows of many functions."""

    def __init__(self) -> None:
        self._rows: dict[sa.Executable, list[StatementRow]] = {}

    def add(self, statement: sa.Executable, rows: Iterable[StatementRow]) -> None:
        self._rows.setdefault(statement, []).extend(rows)

    def execute(self, connection: sa.Connection) -> None:
        """Execute what was added, statements in the order in which they were first added, and forget it."""
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        with _sent_together(connection):
            for statement, of_statement in rows.items():
                connection.execute(statement, of_statement if len(of_statement) > 1 else of_statement[0])


def _sent_together(connection: sa.Connection) -> AbstractContextManager[object]:
    """Statements whose answers nobody reads: PostgreSQL gets them in one round trip, and its error ends the block."""
    if connection.dialect.name != "postgresql":
        return nullcontext()
    return cast("psycopg.Connection", connection.connection.driver_connection).pipeline()


ForAll = Callable[[Session, Sequence[Q]], Sequence[T]]
"""Does for many requests at once what it does for one, and returns what comes of each."""


@dataclass
class _Job:
    fn: Callable[[Session], Any]
    defers: bool = False
    needs: Needs | None = None
    for_all: ForAll[Any, Any] | None = None
    """What does the same for all `request`s that share the transaction; None: `fn` runs by itself."""
    request: Any = None
    future: Future[Any] = field(default_factory=lambda: Future[Any]())
    result: Any = None
    error: BaseException | None = None
    topics: set[str] = field(default_factory=lambda: set[str]())
    last: LastRows = field(default_factory=lambda: LastRows())
    was_put_off: bool = False
    """It let others go first; now it waits for what it needs."""


class _SpoiltError(Exception):
    """A job of a shared transaction raised."""


class _Company:
    """Whom a transaction waits for: callers who were answered together soon ask again, within a few milliseconds.

    It waits for as many as the larger of the last two had, and for half of what the last commit took at most: what one
    caller waits longer, several save a commit for. Alone, nobody waits.
    """

    def __init__(self) -> None:
        self._sizes = deque([1, 1], maxlen=2)
        self.seconds = 0.0
        """How long to wait."""

    @property
    def expected(self) -> int:
        """How many functions the next transaction may have."""
        return max(self._sizes)

    def note(self, size: int, commit_seconds: float) -> None:
        """A transaction of so many functions was committed."""
        self._sizes.append(size)
        self.seconds = min(commit_seconds / 2, COMPANY_SECONDS)


class GroupCommitWriter:
    """Runs functions of a session in a transaction that they share.

    If one raises, nothing of that transaction stays: all are run again, each in a SAVEPOINT of its own, so that the
    one is undone alone. (A savepoint for each from the start would cost as much as what most of them do.) A transaction
    that loses a deadlock is run again at once; one that loses its connection, or cannot be committed, fails all of its
    functions. Results and topics are handed on only after the commit.

    On PostgreSQL other processes lock the same rows: what functions need is locked in one order before the first runs.
    A function that would have to wait lets the others go first, once: the writer is not idle while one row is busy.
    """

    def __init__(self, engine: sa.Engine, publish: Callable[[Iterable[str]], None]) -> None:
        self._engine = engine
        self._publish = publish
        self._alone = engine.dialect.name == "sqlite"
        """Nobody else writes: no locks are needed, and who comes late may still join."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._put_off: list[_Job] = []
        self._company = _Company()
        self._thread = threading.Thread(target=self._work, name="database-writer", daemon=True)
        self._thread.start()

    def run(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in the writer thread; return its result once it is committed, or raise what it raised."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a write inside a write would wait for itself: use the session that is at hand")
        return self.submit(fn).result()

    def submit(self, fn: Callable[[Session], T], *, defers: bool = False, needs: Needs | None = None) -> Future[T]:
        """The same without waiting: the future has the result, or the error, once the transaction has ended.

        `defers`: it reads nothing that functions before it may have deferred, without settling that.
        """
        return self._submit(_Job(fn, defers, needs))

    def submit_request(self, fn: ForAll[Q, T], request: Q, *, needs: Needs | None = None) -> Future[T]:
        """The same for a request of which there are many: those that share a transaction are given to `fn` at once."""
        return self._submit(_Job(lambda session: fn(session, [request])[0], True, needs, fn, request))

    def _submit(self, job: _Job) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._jobs.put(job)
        return job.future

    @property
    def waiting(self) -> int:
        """How many functions wait for their transaction."""
        return self._jobs.qsize()

    def close(self) -> None:
        """Finish what is waiting, then end the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch, self._put_off = self._put_off, []
            if not batch:
                first = self._jobs.get()
                if first is None:
                    return
                if first.future.set_running_or_notify_cancel():
                    batch = [first]
            if not batch:
                continue
            self._take_waiting(batch)
            self._take_company(batch, time.monotonic() + self._company.seconds)
            if not self._alone:
                batch.sort(key=lambda job: "" if job.needs is None else job.needs.order)
            try:
                with COMMIT_SECONDS.time():
                    retried(lambda batch=batch: self._commit(batch))
                COMMITTED_WRITES.inc(len(batch))
            except Exception as error:  # noqa: BLE001 - handed to the callers, who raise it
                for job in batch:
                    job.error = as_loss(error)
            else:
                self._publish({topic for job in batch if job.error is None for topic in job.topics})
            for job in batch:
                if job.error is None:
                    job.future.set_result(job.result)
                else:
                    job.future.set_exception(job.error)

    def _commit(self, batch: list[_Job]) -> None:
        # A retry runs the whole batch again.
        try:
            with self._engine.begin() as connection:
                self._run_together(batch, connection)
                committed_from = time.monotonic()
            self._company.note(len(batch), time.monotonic() - committed_from)
        except _SpoiltError:
            with self._engine.begin() as connection:
                held = _lock(batch, connection)
                for job in batch:
                    _run_apart(job, connection, held)
                _execute_last(batch, connection)

    def _run_together(self, batch: list[_Job], connection: sa.Connection) -> None:
        deadline = time.monotonic() + BATCH_SECONDS
        held = self._lock_or_put_off(batch, connection)
        deferred = Deferred()
        position = 0
        while position < len(batch):
            jobs = _alike(batch, position)
            with _spoiling():
                if not jobs[0].defers:
                    deferred.execute(connection)
                _run(jobs, connection, {HELD: held} | ({DEFERRED: deferred} if jobs[0].defers else {}))
            position += len(jobs)
            if self._alone and position == len(batch) and time.monotonic() < deadline:
                self._take_waiting(batch)
        with _spoiling():
            deferred.execute(connection)
            _execute_last(batch, connection)

    def _lock_or_put_off(self, batch: list[_Job], connection: sa.Connection) -> object:
        """Lock what the functions need; take those out of the batch that would have to wait, if others would not."""
        if self._alone or len(batch) == 1 or any(job.was_put_off for job in batch):
            return _lock(batch, connection)
        needs = [job.needs for job in batch if job.needs is not None]
        if not needs:
            return None
        held, covered = needs[0].lock_free(connection, needs)
        put_off = [job for job in batch if job.needs is not None and job.needs not in covered]
        if len(put_off) == len(batch):
            return _lock(batch, connection)
        for job in put_off:
            job.was_put_off = True
        self._put_off += put_off
        batch[:] = [job for job in batch if not job.was_put_off]
        return held

    def _take_waiting(self, batch: list[_Job]) -> None:
        while len(batch) < BATCH_JOBS and self._take(batch, 0.0):
            pass

    def _take_company(self, batch: list[_Job], until: float) -> None:
        """Take what comes until then (monotonic clock), until there are as many as are expected."""
        wanted = min(self._company.expected, BATCH_JOBS)
        while len(batch) < wanted and (seconds := until - time.monotonic()) > 0 and self._take(batch, seconds):
            pass

    def _take(self, batch: list[_Job], seconds: float) -> bool:
        """Take the next function that comes within so many seconds; False if none does."""
        try:
            job = self._jobs.get(timeout=seconds) if seconds else self._jobs.get_nowait()
        except queue.Empty:
            return False
        if job is None:
            self._jobs.put(None)  # closing: nothing comes after it
            return False
        if job.future.set_running_or_notify_cancel():
            batch.append(job)
        return True


@contextmanager
def _spoiling() -> Generator[None]:
    """An error of one function spoils what they share, unless it is one of the transaction itself."""
    try:
        yield
    except Exception as error:
        if _ends_transaction(error):
            raise
        raise _SpoiltError from error


def _ends_transaction(error: Exception) -> bool:
    return is_retryable(error) or is_connection_loss(error)


def _lock(batch: Sequence[_Job], connection: sa.Connection) -> object:
    needs = [job.needs for job in batch if job.needs is not None]
    return needs[0].lock(connection, needs) if needs else None


def _execute_last(batch: Sequence[_Job], connection: sa.Connection) -> None:
    """Execute what functions left for the end: each row once, and all in the order of their keys."""
    rows = {(key, statement): row for job in batch for (statement, key), row in job.last.items()}
    in_order = sorted(rows.items(), key=lambda each: each[0][0])
    for statement, of_statement in itertools.groupby(in_order, key=lambda each: each[0][1]):
        connection.execute(statement, [row for _, row in of_statement])


def _alike(batch: list[_Job], position: int) -> list[_Job]:
    """The function at this position, with those that can be done at once with it: these are moved behind it.

    None passes another that needs the same.
    """
    first = batch[position]
    if first.for_all is None:
        return [first]
    alike: list[_Job] = []
    others: list[_Job] = []
    passed = set[str]()
    for job in batch[position:]:
        order = None if job.needs is None else job.needs.order
        if job.for_all is first.for_all and order not in passed:
            alike.append(job)
        else:
            others.append(job)
            if order is not None:
                passed.add(order)
    batch[position:] = alike + others
    return alike


def _run(jobs: Sequence[_Job], connection: sa.Connection, info: dict[Any, Any]) -> None:
    """Run one function, or for the requests of all of them what they have in common."""
    for job in jobs:
        job.result, job.error, job.last, job.topics = None, None, {}, set()
    first = jobs[0]
    info[LAST] = first.last
    with Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only", info=info) as session:
        if len(jobs) == 1 or first.for_all is None:
            results: Sequence[Any] = [first.fn(session)]
        else:
            results = first.for_all(session, [job.request for job in jobs])
        session.flush()
        first.topics = session.info.get("topics", set())
    for job, result in zip(jobs, results, strict=True):
        job.result = result


def _run_apart(job: _Job, connection: sa.Connection, held: object) -> None:
    savepoint = connection.begin_nested()
    try:
        _run([job], connection, {HELD: held})
    except Exception as error:
        if _ends_transaction(error) or connection.invalidated:
            raise
        if savepoint.is_active:  # a failed flush has undone it already
            savepoint.rollback()
        # Belongs to this job's caller; its neighbours go on.
        job.error, job.last = error, {}
    else:
        savepoint.commit()
