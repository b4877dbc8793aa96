"""A download that is under way: what came before the connection broke is kept, and not sent again."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 20


class PartialFile:
    """What has arrived of a file, with its hash."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        while chunk := file.read(CHUNK_BYTES):
            self._digest.update(chunk)
            self.size_bytes += len(chunk)

    def restart(self) -> None:
        """Forget what has arrived."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    def sha256(self) -> str:
        """Of what has arrived, as hexadecimal digits."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def arriving(path: Path, *, keep: bool) -> Generator[PartialFile]:
    """What has arrived of the file at `path`; it is there when the context ends without an error.

    `keep`: what had arrived when an error ended the context is there for the next one, also in another process; two at
    a time each have a file of their own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.with_name(f".{path.name}.part")
    shared = _locked(kept) if keep else None
    if shared is None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        file, place = os.fdopen(descriptor, "r+b"), Path(name)
    else:
        file, place = shared, kept
    with file:
        received = PartialFile(file)
        try:
            yield received
            file.flush()
            place.replace(path)
        except BaseException:
            if shared is None or not received.size_bytes:
                place.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> IO[bytes] | None:
    """The file, for this process alone; None if another one has it."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our opening and locking it, another process may have made it the whole file.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except OSError:
        pass
    file.close()
    return None
