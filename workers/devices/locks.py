"""Who has a device: one worker a GPU, and turns for measurements and trainings.

By locks in a folder that processes, and containers that mount it, share.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from workers.engine.turns import arbitration


class DeviceBusyError(Exception):
    """Another worker holds the device."""


def lock_folder() -> Path:
    """LAYERSWEEP_LOCK_DIR, or a folder of the machine's temporary one."""
    given = os.environ.get("LAYERSWEEP_LOCK_DIR")
    return Path(given) if given else Path(tempfile.gettempdir()) / "layersweep-locks"


def lock_device(uuid: str, folder: Path | None = None) -> IO[str]:
    """Hold the device until the returned file is closed, or the process ends. Raises DeviceBusyError, OSError."""
    path = _made(folder or lock_folder()) / f"{uuid}.lock"
    stream = open(path, "a+", opener=arbitration.open_for_all)  # noqa: SIM115 - held beyond this function
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip() or "unknown"
        stream.close()
        raise DeviceBusyError(
            f"{uuid} is in use by another worker (process {holder}, lock {path}): two would disturb each other's "
            "measurements. Stop that one, or name another device"
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream


def turns_of(uuid: str, folder: Path | None = None) -> Path:
    """The device, as workers/engine/turns/arbitration.py takes it, with its files made. Raises OSError."""
    device = _made(folder or lock_folder()) / uuid
    arbitration.make_files(device)
    return device


def _made(folder: Path) -> Path:
    """The folder, made for all users of the machine as the temporary one is: they share its devices."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return folder
    folder.chmod(0o1777)
    return folder
