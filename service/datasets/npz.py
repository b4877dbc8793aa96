"""NPZ files from strangers: no pickles, no surprise in size, nothing read before its header was found good."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.errors import PayloadTooLargeError, UnprocessableError

MAX_ARRAYS = 16
MAX_HEADER_BYTES = 10_000

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_arrays(path: Path, *, limit_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file by name; together they take at most `limit_bytes` when unpacked.

    Raises UnprocessableError for what is no NPZ file, is damaged, or holds anything but plain numbers and text;
    PayloadTooLargeError above the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_members(archive, limit_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        remedy = "write it with numpy.savez or numpy.savez_compressed"
        raise UnprocessableError(f"the file is no NPZ file that can be read ({error}): {remedy}") from None


def _read_members(archive: zipfile.ZipFile, limit_bytes: int) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    if len(members) > MAX_ARRAYS:
        raise UnprocessableError(f"the NPZ file has {len(members)} members: at most {MAX_ARRAYS} arrays are read")
    if sum(member.file_size for member in members) > limit_bytes:
        raise _too_large(limit_bytes)
    arrays: dict[str, NDArray[Any]] = {}
    remaining_bytes = limit_bytes
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename or name in arrays:
            raise UnprocessableError(f"{member.filename!r} is not an array of an NPZ file, or is there twice")
        with archive.open(member) as file:
            shape, dtype = _header(file, name)
        size = math.prod(shape) * dtype.itemsize
        if size > remaining_bytes:
            raise _too_large(limit_bytes)
        if not size <= member.file_size <= size + MAX_HEADER_BYTES + 16:
            raise UnprocessableError(
                f"the array {name} has {member.file_size} bytes, its header says {size}: write it anew"
            )
        remaining_bytes -= size
        with archive.open(member) as file:
            arrays[name] = _array(file, name)
    return arrays


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"format {version[0]}.{version[1]} is not known")
        shape, _, dtype = _HEADERS[version](file, max_header_size=MAX_HEADER_BYTES)
    except ValueError as error:
        raise UnprocessableError(f"the array {name} cannot be read ({error}): write it with numpy.savez") from None
    if dtype.kind not in "biuU":
        raise UnprocessableError(
            f"the array {name} is of type {dtype}: arrays of whole numbers, true and false or text are read "
            "(round measured values to a few levels, and number those from 0)"
        )
    return shape, dtype


def _array(file: IO[bytes], name: str) -> NDArray[Any]:
    try:
        return npy.read_array(file, allow_pickle=False, max_header_size=MAX_HEADER_BYTES)
    except ValueError as error:
        raise UnprocessableError(f"the array {name} cannot be read ({error}): write it with numpy.savez") from None


def _too_large(limit_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"unpacked, the arrays are larger than the {limit_bytes:,} bytes that are accepted here"
    )
