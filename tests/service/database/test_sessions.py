"""The database behaves the same whichever it is: transactions, the clock, announcements."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from service.database import sessions
from service.database.access_models import IdempotencyKey
from service.database.sessions import Database, announce, at_end, defer, execute_deferred, now, now_sql
from tests.service.statements import recorded_statements


def _insert(session: Session, key: str) -> None:
    session.add(IdempotencyKey(key=key, project="default", request_hash="0", created_at=now(session)))


def _keys(database: Database) -> set[str]:
    return set(database.read(lambda session: session.scalars(sa.select(IdempotencyKey.key)).all()))


def test_a_write_is_committed_and_returns_its_result(database: Database) -> None:
    def write(session: Session) -> str:
        _insert(session, "a")
        return "done"

    assert database.write(write) == "done"
    assert _keys(database) == {"a"}


def test_a_write_that_raises_leaves_nothing_behind(database: Database) -> None:
    def write(session: Session) -> None:
        _insert(session, "a")
        session.flush()
        raise LookupError("no")

    with pytest.raises(LookupError):
        database.write(write)
    assert _keys(database) == set()


def test_a_read_cannot_write(database: Database) -> None:
    def write(session: Session) -> None:
        _insert(session, "a")
        session.flush()

    with pytest.raises(DBAPIError):
        database.read(write)
    assert _keys(database) == set()


def test_writes_of_many_threads_fail_and_succeed_each_on_its_own(database: Database) -> None:
    database.write(lambda session: _insert(session, "taken"))

    def write(number: int) -> bool:
        key = "taken" if number % 3 == 0 else f"key-{number}"
        try:
            database.write(lambda session: _insert(session, key))
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(write, range(90)))
    assert outcomes == [number % 3 != 0 for number in range(90)]
    assert _keys(database) == {"taken"} | {f"key-{number}" for number in range(90) if number % 3}


def test_writes_that_wait_share_a_transaction_and_keep_their_order(database: Database) -> None:
    commits: list[object] = []
    sa.event.listen(database.engine, "commit", commits.append)
    entered, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        entered.set()
        go_on.wait(30)

    first = database.submit(slow)
    entered.wait(30)
    rest = [database.submit(lambda session, key=f"{number}": _insert(session, key)) for number in range(20)]
    abandoned = database.submit(lambda session: _insert(session, "abandoned"))
    assert abandoned.cancel()
    go_on.set()
    for future in [first, *rest]:
        future.result(30)
    assert len(commits) < 20
    assert _keys(database) == {f"{number}" for number in range(20)}


def test_what_is_deferred_is_there_for_whoever_settles_and_a_row_that_breaks_a_rule_fails_its_write_alone(
    database: Database,
) -> None:
    insert = sa.insert(IdempotencyKey).values(project="default", request_hash="0", created_at=0.0)
    entered, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        entered.set()
        go_on.wait(30)

    def later(session: Session, key: str) -> None:
        defer(session, insert, {"key": key})

    def seen(session: Session) -> list[str]:
        execute_deferred(session)
        return list(session.scalars(sa.select(IdempotencyKey.key)))

    database.write(lambda session: _insert(session, "taken"))
    writes = [database.submit(slow)]
    entered.wait(30)
    writes += [database.submit(lambda session, key=key: later(session, key)) for key in ("a", "b")]
    looked = database.submit(seen)
    writes += [database.submit(lambda session, key=key: later(session, key)) for key in ("c", "taken", "d")]
    go_on.set()
    errors = [write.exception(30) for write in writes]
    assert [type(error) for error in errors if error] == [IntegrityError]
    assert errors[4] is not None
    assert set(looked.result(30)) == {"taken", "a", "b"}
    assert _keys(database) == {"taken", "a", "b", "c", "d"}
    database.write(lambda session: later(session, "alone"))
    assert "alone" in _keys(database)


def test_requests_that_wait_are_done_at_once_and_one_that_breaks_a_rule_fails_alone(database: Database) -> None:
    calls: list[list[str]] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        entered.set()
        go_on.wait(30)

    def insert_all(session: Session, keys: Sequence[str]) -> list[str]:
        calls.append(list(keys))
        for key in keys:
            _insert(session, key)
        session.flush()
        return [f"{key} is there" for key in keys]

    def at_once(keys: list[str]) -> list[Future[str]]:
        entered.clear()
        go_on.clear()
        first = database.submit(slow)
        entered.wait(30)
        requests = [database.submit_request(insert_all, key) for key in keys]
        other = database.submit(lambda session: _insert(session, f"beside {keys[0]}"))
        go_on.set()
        for future in (first, other):
            future.result(30)
        return requests

    assert [each.result(30) for each in at_once(["a", "b", "c"])] == ["a is there", "b is there", "c is there"]
    assert calls == [["a", "b", "c"]]
    errors = [type(each.exception(30)) for each in at_once(["d", "a", "e"])]
    assert errors == [type(None), IntegrityError, type(None)]
    assert _keys(database) == {"a", "b", "c", "d", "e", "beside a", "beside d"}


def test_rows_that_are_left_for_the_end_are_written_in_the_order_of_their_keys(database: Database) -> None:
    """Whichever statement they are of: another process locks the same rows."""
    see, rename = (sa.text(f"UPDATE workers SET {set_to} WHERE id = :id") for set_to in ("slots = 1", "name = ''"))

    def leave_both(session: Session) -> None:
        for statement, key in ((see, "b"), (rename, "a"), (rename, "c"), (see, "d")):
            at_end(session, statement, key, {"id": key})

    with recorded_statements() as sent:
        database.submit(leave_both).result(30)
    assert ["slots" in text for text in sent if text.startswith("UPDATE workers")] == [False, True, False, True]


def test_a_caller_that_gives_up_while_its_write_runs_harms_nobody(database: Database) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        entered.set()
        go_on.wait(30)

    running = database.submit(slow)
    entered.wait(30)
    assert not running.cancel()
    go_on.set()
    database.submit(lambda session: _insert(session, "next")).result(30)
    assert _keys(database) == {"next"}


def test_a_write_inside_a_write_is_an_error_and_not_a_deadlock(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.upgrade()
    with pytest.raises(RuntimeError, match="inside a write"):
        database.write(lambda _: database.write(lambda session: _insert(session, "a")))
    database.close()


def test_the_clock_is_the_same_in_python_and_in_sql_and_has_fractions(database: Database) -> None:
    def times(session: Session) -> tuple[float, float, float]:
        before = now(session)
        inside = session.scalars(sa.select(now_sql() + 0.0)).one()
        return before, inside, now(session)

    before, inside, after = database.read(times)
    assert before <= inside <= after
    assert abs(before - time.time()) < 60
    assert {database.read(now) % 1 for _ in range(20)} != {0.0}


def test_announcements_are_published_after_the_commit_only(database: Database) -> None:
    notifications = database.notifications

    def failing(session: Session) -> None:
        announce(session, "queue")
        raise LookupError

    since = notifications.version("queue")
    with pytest.raises(LookupError):
        database.write(failing)
    assert notifications.version("queue") == since
    database.write(lambda session: announce(session, "queue"))
    assert notifications.version("queue") > since


def test_a_conflict_with_another_transaction_is_tried_again(postgres_url: str) -> None:
    database = Database(postgres_url)
    database.write(lambda session: [_insert(session, key) for key in ("a", "b")])
    barrier = threading.Barrier(2)

    def cross(first: str, second: str) -> None:
        met = False

        def write(session: Session) -> None:
            nonlocal met
            for key in (first, second):
                session.execute(sa.update(IdempotencyKey).where(IdempotencyKey.key == key).values(request_hash=first))
                if not met:
                    met = True
                    barrier.wait(30)

        database.write(write)

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(cross, "a", "b"), threads.submit(cross, "b", "a")]:
            future.result(60)
    database.close()


def test_reads_and_writes_keep_what_a_connection_has_prepared(postgres_url: str) -> None:
    """The server plans again whatever the driver forgets, and the driver forgets all of it with a ROLLBACK."""
    database = Database(postgres_url, pool_size=1)
    for key in map(str, range(10)):
        database.write(lambda session, key=key: _insert(session, key))
        _keys(database)
    names = database.read(
        lambda session: session.scalars(sa.text("SELECT statement FROM pg_prepared_statements")).all()
    )
    assert any(name.startswith("INSERT INTO idempotency_keys") for name in names)
    assert any(name.startswith("SELECT idempotency_keys.key") for name in names)
    database.close()


def test_a_server_that_restarted_is_found_again_by_a_connection_that_nobody_used(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, administrator = Database(postgres_url), Database(postgres_url)
    database.write(lambda session: _insert(session, "before"))
    end = sa.text(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert administrator.write(lambda session: session.scalars(end).all()) == [True]
    monkeypatch.setattr(sessions, "PING_AFTER_SECONDS", 0.0)
    assert _keys(database) == {"before"}
    for each in (database, administrator):
        each.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_a_database_that_cannot_work_is_refused_with_what_would(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        Database(url)


def test_a_process_that_stops_amid_a_transaction_keeps_no_other_from_its_rows(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "IDLE_TRANSACTION_MS", 300)
    stopped, going = Database(postgres_url), Database(postgres_url)
    going.write(lambda session: _insert(session, "a"))
    take = sa.update(IdempotencyKey).values(request_hash=sa.bindparam("hash"))
    locked, goes_on = threading.Event(), threading.Event()

    def stop_amid(session: Session) -> None:
        session.execute(take, {"hash": "stopped"})
        locked.set()
        goes_on.wait(60)
        session.execute(take, {"hash": "stopped"})

    with ThreadPoolExecutor() as pool:
        late = pool.submit(stopped.write, stop_amid)
        assert locked.wait(60)
        going.write(lambda session: session.execute(take, {"hash": "going"}).rowcount)
        goes_on.set()
        assert isinstance(late.exception(60), DBAPIError)
    stored = going.read(lambda session: session.scalars(sa.select(IdempotencyKey.request_hash)).all())
    assert stored == ["going"]
    for database in (stopped, going):
        database.close()
