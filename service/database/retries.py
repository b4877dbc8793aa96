"""Which failures of the database pass: those that are tried again, and those that took the connection with them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, PendingRollbackError, ResourceClosedError

T = TypeVar("T")

WRITE_ATTEMPTS = 3

_RETRYABLE_SQLSTATES = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock not available
_LOST_SQLSTATES = frozenset({"25P02", "25P03", "57P01", "57P02", "57P03", "57P05"})
"""A transaction that is over already, a server that stops or starts, a session that was idle for too long."""
_LOST_CLASS = "08"  # connection exceptions
_SQLITE_BUSY_CODES = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED


def retried(run: Callable[[], T]) -> T:
    """Return `run()`, tried again when the database says that trying again may help."""
    for attempt in range(1, WRITE_ATTEMPTS + 1):
        try:
            return run()
        except (DBAPIError, psycopg.Error) as error:
            if attempt == WRITE_ATTEMPTS or not is_retryable(error):
                raise
            time.sleep(random.uniform(0.005, 0.02) * attempt)
    raise AssertionError("unreachable")


def retry_if_taken(write: Callable[[], T]) -> T:
    """Return `write()`, run again if somebody took its unique name between its look and its insert: now it is
    found."""
    try:
        return write()
    except IntegrityError:
        return write()


def is_retryable(error: BaseException) -> bool:
    """Whether the transaction was undone for the sake of another: a deadlock, a lock that was not to be had."""
    if _sqlstate(error) in _RETRYABLE_SQLSTATES:
        return True
    code = getattr(_driver_error(error), "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _SQLITE_BUSY_CODES


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection is gone, and the transaction with it. What comes after one says so in other words."""
    if isinstance(error, (PendingRollbackError, ResourceClosedError)):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = _sqlstate(error)
    if state is not None:
        return state in _LOST_SQLSTATES or state.startswith(_LOST_CLASS)
    # Without a state of SQL it is the driver that speaks, of its connection.
    return isinstance(_driver_error(error), (psycopg.OperationalError, psycopg.InterfaceError))


@contextmanager
def one_kind_of_loss() -> Generator[None]:
    """Raise OperationalError for a lost connection, whatever library noticed it, and in whichever words."""
    try:
        yield
    except Exception as error:
        known = as_loss(error)
        if known is error:
            raise
        raise known from error


def as_loss(error: Exception) -> Exception:
    """The error itself, unless it says of a lost connection anything but OperationalError."""
    if isinstance(error, OperationalError) or not is_connection_loss(error):
        return error
    return OperationalError("the connection to the database was lost", None, error)


def _sqlstate(error: BaseException) -> str | None:
    return getattr(_driver_error(error), "sqlstate", None)


def _driver_error(error: BaseException) -> BaseException:
    """What the driver raised: some of its errors reach us without SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
