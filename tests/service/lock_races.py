"""Two transactions on PostgreSQL, of which the second waits for a lock of the first."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from service.database.sessions import Database

WAITS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")

First = TypeVar("First")
Second = TypeVar("Second")


def raced(
    database: Database, first: Callable[[Callable[[], object]], First], second: Callable[[], Second]
) -> tuple[First, Future[Second]]:
    """What the first answers, and the second, which began before the first had ended."""
    with ThreadPoolExecutor(1) as threads:
        begun: list[Future[Second]] = []

        def begin() -> None:
            begun.append(threads.submit(second))
            _await_lock(database)

        answer = first(begin)
        return answer, begun[0]


def _await_lock(database: Database) -> None:
    """Until a transaction waits for another's lock."""
    deadline = time.monotonic() + 30
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(WAITS).scalar_one():
            assert time.monotonic() < deadline, "nobody waits for a lock"
