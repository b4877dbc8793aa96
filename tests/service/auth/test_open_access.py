"""Whether a service is open to everybody: no request is let in before that was read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.auth import tokens
from service.auth.access import Access
from service.auth.rate_limits import Limits
from service.database.sessions import Database
from service.settings import Settings


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here."""
    return migrated_sqlite_url


@pytest.fixture
def access(database: Database, settings: Settings) -> Access:
    """That of a process which has just started, over a database that has a token."""
    new = tokens.NewToken("first", ["read"], None)
    database.write(lambda session: tokens.create(session, new, made_by="a test"))
    return Access(database, 4, Limits(settings))


def test_requests_that_come_together_at_a_start_find_it_closed(access: Access) -> None:
    async def asked() -> list[bool]:
        return await asyncio.gather(*(access.is_open() for _ in range(3)))

    assert asyncio.run(asked()) == [False, False, False]


def test_a_database_that_does_not_answer_opens_nothing(
    access: Access, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fn: Callable[..., Any]) -> Any:
        raise OperationalError("select", None, Exception("away"))

    async def asked_twice() -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(database, "read", refuse)
            with pytest.raises(OperationalError):
                await access.is_open()
        return await access.is_open()

    assert not asyncio.run(asked_twice())
