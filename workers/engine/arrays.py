"""Arrays by file: how a worker hands arrays to its children and gets them back."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from .protocol import invalid


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file by name; never unpickles. Raises RequestError("invalid")."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise invalid(f"{path} holds a single array; write it with numpy.savez and names")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise invalid(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise invalid(f"{path} is no readable .npz file of plain arrays: {problem}") from problem


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file that is whole or not there. Raises RequestError("invalid") if it cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, **cast("Any", dict(arrays)))
        part.replace(path)
    except OSError as problem:
        raise invalid(f"{path} cannot be written: {problem}") from problem
    finally:
        part.unlink(missing_ok=True)
