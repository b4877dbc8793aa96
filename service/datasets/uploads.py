"""Uploads that take several requests: files named by the hash that they will have, which grow piece by piece.

A connection that breaks costs what was not yet written; the next piece goes on from there, from any process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO

from service.common.hashing import file_hash
from service.datasets.datasets import uploads_folder
from service.errors import ConflictError, NotFoundError, PayloadTooLargeError, UnprocessableError
from service.settings import Settings

MOST_UNFINISHED = 64
"""Files of a project."""

_SHA256 = re.compile("[0-9a-f]{64}")


def received_bytes(settings: Settings, project: str, sha256: str) -> int:
    """How much of a file is there. Raises NotFoundError if nothing is."""
    path = _path(settings, project, sha256)
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise NotFoundError(f"nothing of {sha256[:12]}… has arrived: begin at 0") from None


@contextlib.contextmanager
def growing(settings: Settings, project: str, sha256: str, offset: int) -> Generator[IO[bytes]]:
    """The file, to be written from `offset` on, which is where it ends.

    Raises ConflictError if it ends elsewhere, is written to by another request, or too many are unfinished.
    """
    path = _path(settings, project, sha256)
    if not path.exists():
        if len(list(path.parent.glob(f"{project}.*{_SUFFIX}"))) >= MOST_UNFINISHED:
            raise ConflictError(f"{MOST_UNFINISHED} uploads are unfinished: finish or delete one of them first")
        if offset:
            raise ConflictError(f"nothing of {sha256[:12]}… has arrived: begin at 0")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(f"another request sends {sha256[:12]}… now: wait for it") from None
        end = file.seek(0, os.SEEK_END)
        if end != offset:
            raise ConflictError(f"{end:,} bytes of {sha256[:12]}… have arrived, not {offset:,}: go on from there")
        yield file


def check_size(settings: Settings, size_bytes: int) -> None:
    """Raise PayloadTooLargeError for a file that is larger than what is accepted."""
    if size_bytes > settings.max_upload_bytes:
        raise PayloadTooLargeError(f"the file is larger than the {settings.max_upload_bytes:,} bytes accepted here")


def whole_files(settings: Settings, project: str, named: str) -> list[Path]:
    """The files that a form names by their hashes, with commas between. Raises UnprocessableError for one of which not
    all has arrived as it was sent."""
    hashes = [each.strip() for each in named.split(",")]
    return [_whole(settings, project, sha256) for sha256 in hashes]


def delete(settings: Settings, project: str, hashes: Sequence[str]) -> None:
    """Delete what has arrived of files."""
    for sha256 in hashes:
        _path(settings, project, sha256).unlink(missing_ok=True)


def hash_of(path: Path) -> str:
    """The hash that an upload is named by."""
    return path.name.removesuffix(_SUFFIX).rpartition(".")[2]


def _whole(settings: Settings, project: str, sha256: str) -> Path:
    path = _path(settings, project, sha256)
    if not path.is_file():
        detail = f"nothing of {sha256[:12]}… has arrived"
        raise UnprocessableError.at("/uploads", detail, f"send it to /v1/uploads/{sha256} first")
    found = file_hash(path)
    if found != sha256:
        detail = f"what has arrived of {sha256[:12]}… is {path.stat().st_size:,} bytes of {found[:12]}…"
        raise UnprocessableError.at("/uploads", detail, "send the rest, or delete it and begin again")
    return path


_SUFFIX = ".upload"


def _path(settings: Settings, project: str, sha256: str) -> Path:
    if not _SHA256.fullmatch(sha256):
        detail = f"{sha256[:80]!r} is no SHA-256"
        raise UnprocessableError.at("/uploads", detail, "name a file by its 64 hexadecimal digits")
    return uploads_folder(settings) / f"{project}.{sha256}{_SUFFIX}"
