"""The key that this installation's webhook secrets are made from. It is never in the database.

`LAYERSWEEP_SECRET_KEY` gives it; else a file of the data folder, which all API processes share, is made at first use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from service.settings import Settings

FILE = "server.key"


def read(settings: Settings) -> bytes:
    """The key, the same in every process of the installation."""
    given = settings.secret_key.get_secret_value()
    if given:
        return given.encode()
    path = Path(settings.data_dir) / FILE
    if not path.is_file():
        _make(path)
    return path.read_bytes()


def _make(path: Path) -> None:
    """Write the file whole or not at all: the first of several processes wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
