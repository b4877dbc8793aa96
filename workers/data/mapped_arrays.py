"""Arrays of an NPZ file that stay in it: the system reads what is looked at, and may forget it again."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from workers.data.batches import DataError

LOCAL_HEADER_BYTES = 30
"""APPNOTE.TXT of ZIP, 4.3.7: before the name and the extra field, whose lengths are its last two numbers."""


def map_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file that is not compressed, read-only. Raises DataError for another."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return {each.filename.removesuffix(".npy"): _mapped(path, file, each) for each in archive.infolist()}
    except (OSError, ValueError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path.name} is no NPZ file of plain arrays: {problem}") from None


def _mapped(path: Path, file: IO[bytes], member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type != zipfile.ZIP_STORED:
        raise DataError(f"{path.name} is compressed: its arrays cannot be mapped")
    file.seek(member.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    file.seek(member.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes)
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, in_columns, kept = read_header(file)
    if kept.hasobject:
        raise DataError(f"{path.name} holds objects, which are not read")
    if 0 in shape:
        # Nothing cannot be mapped.
        return np.empty(shape, kept)
    order = "F" if in_columns else "C"
    return np.asarray(np.memmap(path, kept, "r", offset=file.tell(), shape=shape, order=order))
