"""The database: transactions, its clock, its schema. SQLite and PostgreSQL behave the same behind `Database`."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, TypeVar, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.common import tracing
from service.common.notifications import Notifications
from service.database import urls
from service.database.group_commit import (
    DEFERRED,
    LAST,
    Deferred,
    ForAll,
    GroupCommitWriter,
    LastRows,
    Needs,
    StatementRow,
)
from service.database.retries import one_kind_of_loss, retried

T = TypeVar("T")
Q = TypeVar("Q")

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
IDLE_TRANSACTION_MS = 30_000
"""How long a transaction on PostgreSQL may be left open with nothing asked of it."""

PING_AFTER_SECONDS = 1.0
"""A connection to PostgreSQL that nobody used for so long is tried before it is used: the server may have restarted."""

_USED_AT = "used_at"
_BUSY_TIMEOUT_MS = 10_000
_MIGRATION_LOCK = 0x6C61_7965_7273  # "layers": one migration at a time on a shared PostgreSQL


class SchemaError(RuntimeError):
    """The database has the schema of another version."""


class OldSchemaError(SchemaError):
    """Of an older one: `layersweep db upgrade` brings it up to date."""


class NewerSchemaError(SchemaError):
    """Of a newer one: this program cannot use it."""


class AsyncRead(Protocol):
    """`Database.read` for callers on an event loop, which it keeps free."""

    def __call__(self, fn: Callable[[Session], T], /) -> Awaitable[T]: ...


class now_sql(FunctionElement[float]):  # noqa: N801 - used like a function of SQL
    """The database's clock in a statement: seconds since the epoch, with fractions."""

    type = sa.Double()
    inherit_cache = True
    name = "now_epoch"


@compiles(now_sql, "sqlite")
def _now_sqlite(element: now_sql, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now_sql, "postgresql")
def _now_postgresql(element: now_sql, compiler: SQLCompiler, **options: Any) -> str:
    # clock_timestamp() and not now(): a statement may have waited for a lock since its transaction began.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


_NOW = sa.select(now_sql())


class Unsynchronized(TypedDict):
    synchronize_session: Literal[False]


UNSYNCHRONIZED: Unsynchronized = {"synchronize_session": False}
"""Execution options of a statement after which nothing reads the rows that the session holds already."""


def now(session: Session) -> float:
    """Return the database's time in seconds since the epoch."""
    return session.connection().execute(_NOW).scalar_one()


def announce(session: Session, topic: str) -> None:
    """Publish `topic` once the transaction of `session` is committed; never if it is not."""
    session.info.setdefault("topics", set()).add(topic)


def defer(session: Session, statement: sa.Executable, *rows: StatementRow) -> None:
    """Execute the statement for these rows before the transaction ends, together with others' rows.

    For what nobody reads in it before `execute_deferred`. Outside of a shared transaction it is executed at once.
    """
    deferred: Deferred | None = session.info.get(DEFERRED)
    if deferred is not None:
        deferred.add(statement, rows)
    elif rows:
        session.connection().execute(statement, list(rows) if len(rows) > 1 else next(iter(rows)))


def execute_deferred(session: Session) -> None:
    """Execute what was deferred in the transaction of `session`."""
    deferred: Deferred | None = session.info.get(DEFERRED)
    if deferred is not None:
        deferred.execute(session.connection())


def at_end(session: Session, statement: sa.Executable, key: str, row: StatementRow) -> None:
    """Execute the statement for this row when the transaction ends, once a key and in the order of the keys.

    For rows that many small writes touch and none reads. Outside of a shared transaction it is executed at once.
    """
    last: LastRows | None = session.info.get(LAST)
    if last is None:
        session.connection().execute(statement, row)
    else:
        last[statement, key] = row


class Database:
    """One database, whichever it is.

    `read` and `write` take a function of a session and may be called from any thread (but not inside one another).
    The function must do nothing but use the session: it is run again when the database asks for it. It neither commits
    nor rolls back. Rows that it returns stay readable. Errors that it raises undo what it did and reach the caller.

    On SQLite all writes of the process go through one thread that puts what is waiting into one transaction: many
    callers share one fsync, and none meets a locked database because of another. On PostgreSQL that is so for what is
    given to `submit`: many small writes to the same sweep would wait for one another's commit.
    """

    def __init__(self, url: str, *, notifications: Notifications | None = None, pool_size: int = 10) -> None:
        self.url = urls.parse(url)
        self.notifications = notifications or Notifications()
        self.dialect: Literal["sqlite", "postgresql"] = (
            "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        )
        self._writer: GroupCommitWriter | None = None
        self._writer_lock = threading.Lock()
        if self.dialect == "sqlite":
            Path(cast(str, self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            self.engine = _sqlite_engine(self.url, begin="BEGIN IMMEDIATE", query_only=False, pool_size=2)
            self._readers = _sqlite_engine(self.url, begin="BEGIN", query_only=True, pool_size=pool_size)
        else:
            self.engine = _postgres_engine(self.url, pool_size=pool_size)
            # A snapshot for all statements of a read, as SQLite gives it.
            self._readers = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def read(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` on one snapshot of the database; writing is an error."""
        with (
            tracing.span("database.read"),
            one_kind_of_loss(),
            Session(self._readers, expire_on_commit=False) as session,
        ):
            result = fn(session)
            # Not rolled back: the driver would then forget every statement that the connection has prepared.
            session.commit()
        return result

    def write(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in one transaction, commit it, publish what it announced, and return its result.

        Deadlocks, serialization failures and locked databases are tried again, `retries.WRITE_ATTEMPTS` times in all.
        A lost connection is an OperationalError, here as in `read` and `submit`.
        """
        with tracing.span("database.write"), one_kind_of_loss():
            if self.dialect == "sqlite":
                return self._group_commit().run(fn)
            return retried(lambda: self._write_alone(fn))

    def submit(self, fn: Callable[[Session], T], *, needs: Needs | None = None) -> Future[T]:
        """The same for a small write that may share its transaction with others that wait; return at once.

        `needs`: the rows that it locks, if others lock them too (`service.leases.row_locks`). One that raises is undone
        alone; those that shared its transaction are run again.
        """
        return self._group_commit().submit(fn, defers=True, needs=needs)

    def submit_request(self, fn: ForAll[Q, T], request: Q, *, needs: Needs | None = None) -> Future[T]:
        """The same for a request of which there are many: `fn` is given all that share a transaction at once."""
        return self._group_commit().submit_request(fn, request, needs=needs)

    @property
    def waiting(self) -> int:
        """How many writes wait for the thread that writes for others."""
        return 0 if self._writer is None else self._writer.waiting

    def schema_is_current(self) -> bool:
        """True when the database has the newest schema that this program knows. Raises NewerSchemaError."""
        with self.engine.connect() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
        known, newest_known = _revisions()
        unknown = set(heads) - known
        if unknown:
            schema, newest = (", ".join(sorted(each)) for each in (unknown, newest_known))
            raise NewerSchemaError(
                f"this database is of a newer version of Layersweep (its schema is {schema}, the newest that this "
                f"version knows is {newest}): install that version, or restore the backup from before the upgrade"
            )
        return frozenset(heads) == newest_known

    def check_schema(self) -> None:
        """Raise OldSchemaError or NewerSchemaError if the schema is not that of this program."""
        if not self.schema_is_current():
            raise OldSchemaError("the database's schema is older than this version needs: run `layersweep db upgrade`")

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema to `revision`; safe to call from several processes at once. Raises NewerSchemaError."""
        if not self.schema_is_current() or revision != "head":
            self._migrate(lambda config: command.upgrade(config, revision))

    def downgrade(self, revision: str) -> None:
        """Take the schema back to `revision` ("base": nothing left)."""
        self._migrate(lambda config: command.downgrade(config, revision))

    def close(self) -> None:
        """Wait for the writes under way and close every connection."""
        with self._writer_lock:
            if self._writer is not None:
                self._writer.close()
        self._readers.dispose()
        self.engine.dispose()

    def _write_alone(self, fn: Callable[[Session], T]) -> T:
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                result = fn(session)
            topics: set[str] = session.info.get("topics", set())
        self.notifications.publish(topics)
        return result

    def _group_commit(self) -> GroupCommitWriter:
        with self._writer_lock:
            if self._writer is None:
                self._writer = GroupCommitWriter(self.engine, self.notifications.publish)
            return self._writer

    def _migrate(self, run: Callable[[Config], None]) -> None:
        config = _alembic_config()
        with self.engine.begin() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            run(config)


def _session_settings(url: sa.URL) -> dict[str, str]:
    """A process that is stopped amid a transaction, and does not die, keeps no other from what it has locked."""
    given = url.query.get("options", "")
    own = f"-c idle_in_transaction_session_timeout={IDLE_TRANSACTION_MS}"
    return {"options": f"{own} {given if isinstance(given, str) else ' '.join(given)}".strip()}


def _postgres_engine(url: sa.URL, *, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=15,
        # The same few connections again, which have prepared the statements that come.
        pool_use_lifo=True,
        # What a caller sent must not reach the log by way of an error.
        hide_parameters=True,
        connect_args=_session_settings(url),
    )

    @event.listens_for(engine, "checkin")
    def checked_in(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        record.info[_USED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checked_out(connection: DBAPIConnection, record: ConnectionPoolEntry, fairy: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        if time.monotonic() - record.info.get(_USED_AT, time.monotonic()) < PING_AFTER_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    return engine


def _sqlite_engine(url: sa.URL, *, begin: str, query_only: bool, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=pool_size, max_overflow=pool_size, pool_timeout=15, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        # The driver begins transactions by itself, too late for a snapshot and never for DDL: we begin them.
        cast(Any, connection).isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {_BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"query_only = {'ON' if query_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def began(connection: sa.Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql(begin)

    return engine


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


@cache
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """The schemas that this program knows, and the newest of them. Each is a file to be read and compiled."""
    scripts = ScriptDirectory.from_config(_alembic_config())
    return frozenset(each.revision for each in scripts.walk_revisions()), frozenset(scripts.get_heads())
