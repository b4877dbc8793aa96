"""One worker a GPU: a lock in a folder that processes, and containers that mount it, share."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO


class DeviceBusy(Exception):
    """Another worker holds the device."""


def lock_folder() -> Path:
    """LAYERSWEEP_LOCK_DIR, or a folder of the machine's temporary one."""
    given = os.environ.get("LAYERSWEEP_LOCK_DIR")
    return Path(given) if given else Path(tempfile.gettempdir()) / "layersweep-locks"


def lock_device(uuid: str, folder: Path | None = None) -> IO[str]:
    """Hold the device until the file that is returned is closed, or the process ends. Raises DeviceBusy, OSError."""
    folder = folder or lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid}.lock"
    stream = path.open("a+")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip() or "unknown"
        stream.close()
        raise DeviceBusy(
            f"{uuid} is in use by another worker (process {holder}, lock {path}): two would disturb each other's "
            "measurements. Stop that one, or name another device"
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream
