"""A request that is sent again does nothing again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from service.database.access_models import IdempotencyKey
from service.database.sessions import Database
from service.errors import InFlightError, UnprocessableError
from service.http.idempotency import Answer, forget_old, once, request_hash


def _once(database: Database, key: str | None, request: str, number: int) -> Answer:
    return database.write(lambda session: once(session, key, request_hash(request), lambda: (201, {"id": number})))


def test_the_first_answer_is_given_again(database: Database) -> None:
    assert _once(database, "key", "a", 1) == (201, {"id": 1})
    assert _once(database, "key", "a", 2) == (201, {"id": 1})
    assert _once(database, "other", "a", 3) == (201, {"id": 3})


def test_without_a_key_everything_is_done_again(database: Database) -> None:
    assert [_once(database, None, "a", number)[1]["id"] for number in (1, 2)] == [1, 2]


def test_a_key_is_for_one_request(database: Database) -> None:
    _once(database, "key", "a", 1)
    with pytest.raises(UnprocessableError, match="another request"):
        _once(database, "key", "b", 2)


def test_an_error_is_not_kept(database: Database) -> None:
    def fail() -> Answer:
        raise LookupError

    with pytest.raises(LookupError):
        database.write(lambda session: once(session, "key", request_hash("a"), fail))
    assert _once(database, "key", "a", 1) == (201, {"id": 1})


def test_requests_at_the_same_time_are_done_once(database: Database) -> None:
    barrier = threading.Barrier(4)

    def request(number: int) -> Answer:
        barrier.wait(30)
        while True:
            try:
                return _once(database, "key", "a", number)
            except InFlightError:
                # Another transaction has it: PostgreSQL lets both begin.
                continue

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(request, range(4)))
    assert len({answer[1]["id"] for answer in answers}) == 1


def test_old_keys_are_forgotten(database: Database) -> None:
    _once(database, "old", "a", 1)
    _once(database, "new", "a", 2)
    statement = sa.update(IdempotencyKey).where(IdempotencyKey.key == "old").values(created_at=1.0)
    database.write(lambda session: session.execute(statement).rowcount)
    database.write(forget_old)
    assert _once(database, "old", "a", 3) == (201, {"id": 3})
    assert _once(database, "new", "a", 4) == (201, {"id": 2})


def test_the_hash_does_not_depend_on_where_parts_meet() -> None:
    assert request_hash("ab", "c") != request_hash("a", "bc")
    assert request_hash("a", b"b") == request_hash("a", "b")
