"""Files that a caller names: read whatever they are (pipes too), written whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from layersweep.errors import InvalidUsageError, ServiceFailureError

STANDARD_INPUT = Path("/dev/stdin")
MOST_VARIABLE_BYTES = 64 * 1024
SOURCE = "_SOURCE"
"""The end of the variable that keeps where a variable was read from, for who reads it again."""


def name_of(path: Path) -> str:
    """What people call the file."""
    return "standard input" if path == STANDARD_INPUT else str(path)


@contextmanager
def opened(path: Path) -> Generator[IO[bytes]]:
    """The bytes of a file, from its beginning, with a length. What comes through a pipe is kept in a temporary file.

    Raises InvalidUsageError for what is not there, may not be read, is a folder, or is a device without an end.
    """
    with _told(path, "read"):
        stream = _usable(path).open("rb")
    with stream:
        kind = os.fstat(stream.fileno()).st_mode
        if stat.S_ISREG(kind):
            yield stream
            return
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stream.isatty()):
            raise InvalidUsageError(f"{name_of(path)} cannot be read: it is a device, not a file")
        with tempfile.TemporaryFile() as kept:
            with _told(path, "kept in a temporary file"):
                shutil.copyfileobj(stream, kept)
                kept.seek(0)
            yield kept


def read(path: Path, most_bytes: int) -> bytes:
    """All bytes of a file. Raises InvalidUsageError if it cannot be read, or holds more than `most_bytes`."""
    with opened(path) as stream, _told(path, "read"):
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise InvalidUsageError(f"{name_of(path)} cannot be read: it has more than {most_bytes // 2**20} MiB")
    return content


@contextmanager
def written(path: Path) -> Generator[IO[bytes]]:
    """A file to write: it is there, under its name, once all of it was written. Raises InvalidUsageError.

    What is there already and is no ordinary file (a pipe, a device) is written to as it is.
    """
    with _told(path, "written"):
        target = _usable(path).resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                yield stream
            return
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as stream:
                yield stream
            if target.exists():
                shutil.copymode(target, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def temporary() -> Generator[IO[bytes]]:
    """A file that is gone afterwards. Raises InvalidUsageError if it cannot be written."""
    with _told(Path(tempfile.gettempdir()), "written"), tempfile.TemporaryFile() as stream:
        yield stream


def read_variables(environment: MutableMapping[str, str]) -> None:
    """Put LAYERSWEEP_X in the place of LAYERSWEEP_X_FILE, read from the file that it names: how containers get secrets.

    The end of the last line is left out. Where it was read from is kept as LAYERSWEEP_X_SOURCE, for this process and
    its children. Raises InvalidUsageError if the file cannot be read, or both are set.
    """
    for pointer in [name for name in environment if name.startswith("LAYERSWEEP_") and name.endswith("_FILE")]:
        name = pointer.removesuffix("_FILE")
        if not environment[pointer]:
            continue
        if environment.get(name):
            raise InvalidUsageError(f"{name} and {pointer} are both set: leave one out")
        path = Path(environment.pop(pointer))
        environment[name] = _line(path, pointer)
        environment[f"{name}{SOURCE}"] = str(path.absolute())


def read_again(environment: MutableMapping[str, str], name: str) -> bool:
    """Read a variable again from where `read_variables` had read it; whether it has another value now.

    A file that is gone, empty or unreadable for a moment changes nothing.
    """
    source = environment.get(f"{name}{SOURCE}")
    if source is None:
        return False
    try:
        found = _line(Path(source), name)
    except InvalidUsageError:
        return False
    if not found or found == environment.get(name):
        return False
    environment[name] = found
    return True


def _line(path: Path, pointer: str) -> str:
    try:
        return read(path, MOST_VARIABLE_BYTES).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidUsageError(f"what {pointer} names is not text in UTF-8") from None


def make_folder(path: Path) -> None:
    """A folder, with those above it, if it is not there yet. Raises InvalidUsageError."""
    with _told(path, "made"):
        _usable(path).mkdir(parents=True, exist_ok=True)


def unpack(archive: IO[bytes], folder: Path) -> list[Path]:
    """Write the files of a ZIP archive into a folder, which is made; the files. Raises ServiceFailureError, and writes
    nothing, for what is no such archive, is damaged, or holds folders."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if (damaged := opened.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged!r} is not what it was")
            return _written_from(opened, folder)
    except (zipfile.BadZipFile, zlib.error) as problem:
        raise ServiceFailureError(502, {"type": "corrupt", "detail": f"the archive is damaged: {problem}"}) from None


def _written_from(archive: zipfile.ZipFile, folder: Path) -> list[Path]:
    names = archive.namelist()
    for name in names:
        if not name.strip(".") or any(character in name for character in "/\\\0:"):
            detail = f"the archive holds {name!r}, which is not the name of a file in a folder"
            raise ServiceFailureError(502, {"type": "corrupt", "detail": detail})
    make_folder(folder)
    for name in names:
        with written(folder / name) as target, archive.open(name) as source:
            shutil.copyfileobj(source, target)
    return [folder / name for name in names]


@contextmanager
def _told(path: Path, done: str) -> Generator[None]:
    try:
        yield
    except OSError as problem:
        if isinstance(problem, ConnectionError | TimeoutError):
            raise
        raise InvalidUsageError(f"{name_of(path)} cannot be {done}: {problem.strerror or problem}") from problem


def _usable(path: Path) -> Path:
    if "\0" in str(path):
        raise InvalidUsageError(f"{str(path)!r} is not a path: it holds a zero byte")
    return path
