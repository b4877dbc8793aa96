"""What passes when an operator has seen to it: a full or read-only disk, a database that is away. One line each.

`cause_of` says in words why nothing can be stored or read now. Whoever meets such an error answers 503 with the cause,
and logs the cause: a traceback a request would hide it.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.database.retries import is_connection_loss
from service.errors import CannotStoreError, UnavailableError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
_OF_SQLITE = {8: "is read-only", 10: "cannot be read or written", 13: "is full"}
_NOT_OPENED = 14
"""SQLite makes files beside its own as soon as it reads."""
_OF_POSTGRESQL = {"53100": "is full", "58030": "cannot be read or written", "25006": "is read-only"}
_PROBE_BYTES = 4096


def cause_of(error: BaseException) -> str | None:
    """Why the service cannot do its work now; None if the error says something else."""
    storage = _storage_cause(error)
    if storage is not None:
        return storage
    if isinstance(error, PoolTimeoutError) or is_connection_loss(error):
        return "the database does not answer"
    return None


def words_of(error: BaseException) -> str | None:
    """The cause, with what the database's driver says of it: for operators, not for callers over HTTP.

    The driver names the host, port, user and database that it tried, and no password.
    """
    cause = cause_of(error)
    if cause is None or _storage_cause(error) is not None or not isinstance(error, DBAPIError) or error.orig is None:
        return cause
    message = " ".join(str(error.orig).split())
    return f"{cause}: {message}" if message else cause


def answer_to(error: BaseException) -> UnavailableError | None:
    """The answer to a request that met it; None if it is another kind of error."""
    storage = _storage_cause(error)
    if storage is not None:
        return CannotStoreError(storage)
    cause = cause_of(error)
    return None if cause is None else UnavailableError(cause)


def log(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Log that `what` failed: with its cause in one line if that is known, else with the traceback."""
    cause = words_of(error)
    if cause is None:
        logger.error("%s", what, exc_info=error)
    else:
        logger.error("%s: %s", what, cause)


def check_folder(folder: Path, name: str) -> None:
    """Raise CannotStoreError unless a file can be written in the folder. `name` is what the error calls it.

    A folder that has vanished is not made anew: its volume may come back.
    """
    probe = folder / f".probe.{secrets.token_hex(8)}"
    if not folder.is_dir():
        raise CannotStoreError(f"{name} is not there")
    try:
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise CannotStoreError(f"{name} cannot be written: {_words(error)}") from error


def database_folder(url: sa.URL) -> Path | None:
    """Where an embedded database lies; None for a server's."""
    is_embedded = url.get_backend_name() == "sqlite" and url.database
    return Path(str(url.database)).parent if is_embedded else None


def _storage_cause(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _FULL | _REFUSED:
        return f"the service cannot write its files: {_words(error)}"
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == _NOT_OPENED:
            return "the database's file cannot be opened: its folder has to be there, and writable"
        words = None if code is None else _OF_SQLITE.get(code & 0xFF)
        words = words or _OF_POSTGRESQL.get(getattr(error.orig, "sqlstate", None) or "")
        return None if words is None else f"the database's disk {words}"
    return None


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
