"""The key that this installation's webhook secrets are made from. It is never in the database.

`LAYERSWEEP_SECRET_KEY` gives it; else a file of the data folder, which all API processes share, is made before the
first webhook. It is never made anew: every receiver would reject what is signed with another key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from service.errors import CannotStoreError, UnavailableError
from service.settings import Settings

FILE = "server.key"


class MissingKeyError(UnavailableError):
    """There are webhooks, and the key that their secrets were made from is not there."""


def read(settings: Settings, is_used: Callable[[], bool]) -> bytes:
    """The key, the same in every process of the installation; made if there is none.

    `is_used` says whether there are webhooks. If so, none is made. Raises MissingKeyError, CannotStoreError.
    """
    key = find(settings)
    if key is None:
        check(settings, is_used)
        path = Path(settings.data_dir) / FILE
        _make(path)
        key = path.read_bytes()
    return key


def check(settings: Settings, is_used: Callable[[], bool]) -> None:
    """Raise MissingKeyError if there are webhooks and the key is not there."""
    # In this order: whoever made the first webhook a moment ago has made the key before.
    if is_used() and find(settings) is None:
        path = Path(settings.data_dir) / FILE
        raise MissingKeyError(
            f"{path.absolute()} is not there and LAYERSWEEP_SECRET_KEY is not set, and one of them made the secrets of "
            f"the existing webhooks: set LAYERSWEEP_DATA_DIR to the right folder, put {FILE} back from a backup, or "
            "set that key again. If the key is lost, set a new LAYERSWEEP_SECRET_KEY, restart the service, and rotate "
            "every webhook"
        )


def find(settings: Settings) -> bytes | None:
    """The key if there is one."""
    given = settings.secret_key.get_secret_value()
    if given:
        return given.encode()
    try:
        return (Path(settings.data_dir) / FILE).read_bytes()
    except FileNotFoundError:
        return None


def _make(path: Path) -> None:
    """Write the file whole or not at all: the first of several processes wins."""
    if not path.parent.is_dir():
        raise CannotStoreError("the data folder is not there")
    mine = path.with_name(f".{FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
    finally:
        mine.unlink(missing_ok=True)
