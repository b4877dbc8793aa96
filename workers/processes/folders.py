"""The folder of one attempt: removed after it or, if its worker was killed, by the next attempt on the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

PREFIX = "layersweep-attempt-"
LOCK = ".in-use"
"""Locked while its worker lives: the kernel lets go of it however the worker ends."""


@contextlib.contextmanager
def attempt_folder(parent: Path | None = None) -> Generator[Path]:
    """An empty folder below `parent` (default: the system's for temporary files) for the time of the context."""
    parent = parent or Path(tempfile.gettempdir())
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    descriptor = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        # Locked before it has its name: nobody can find it unlocked in between.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders below `parent` whose worker is no more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / LOCK, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
