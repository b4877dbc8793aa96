"""The files of a dataset on their way: in one request if they are small, else piece by piece.

A connection that breaks costs one piece; so does a client that is stopped, for the next one goes on where it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from layersweep import files
from layersweep.errors import NotFoundError, ResponseError, UnreachableError
from layersweep.retries import RETRIED_STATUSES, Backoff
from layersweep.transport import Transport

Data: TypeAlias = str | os.PathLike[str] | bytes | Sequence[str | os.PathLike[str]]
"""A path (of a pipe, too), several of them in order, or the bytes themselves."""

WHOLE_BYTES = 32 << 20
"""Files of so many bytes together go in one request."""

PIECE_BYTES = 16 << 20
MOST_FAILURES = 8
"""One after the other: then the upload is given up, and can be taken up again."""

BACKOFF = Backoff(first_seconds=0.5, most_seconds=30.0)
GO_ON_STATUSES = RETRIED_STATUSES | {409}
REGISTERING_SECONDS = 3600.0
"""Of a gigabyte, a tokenizer is trained and a profile made."""


def register(
    transport: Transport, fields: Mapping[str, str], name: str, data: Data, tokenizer_file: Path | None
) -> Any:
    """Send the files of a dataset with the fields of its form. Answers its record."""
    with contextlib.ExitStack() as stack:
        parts = (
            []
            if tokenizer_file is None
            else [_part("tokenizer_file", stack.enter_context(files.opened(tokenizer_file)))]
        )
        opened = (
            [(name, data)] if isinstance(data, bytes) else [stack.enter_context(_named(path)) for path in _paths(data)]
        )
        if sum(_size(content) for _, content in opened) > WHOLE_BYTES:
            with contextlib.suppress(NotFoundError):
                # A service that knows no uploads is sent all in one request.
                hashes = [_upload(transport, content) for _, content in opened if not isinstance(content, bytes)]
                if hashes:
                    fields, opened = {**fields, "uploads": ",".join(hashes)}, []
        parts += [_part("file", content, label) for label, content in opened]
        # As parts, so that a form without a file is multipart, too.
        form = [(field, (None, value.encode())) for field, value in fields.items()]
        return transport.object("POST", "/v1/datasets", files=[*form, *parts], timeout_seconds=REGISTERING_SECONDS)


def _paths(data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    return [Path(data)] if isinstance(data, str | os.PathLike) else [Path(each) for each in data]


@contextlib.contextmanager
def _named(path: Path) -> Generator[tuple[str, IO[bytes]]]:
    with files.opened(path) as stream:
        yield path.name, stream


def _part(field: str, content: Any, label: str = "tokenizer.json") -> tuple[str, tuple[str, Any, str]]:
    return field, (label.encode(errors="replace").decode(), content, "application/octet-stream")


def _size(content: bytes | IO[bytes]) -> int:
    return len(content) if isinstance(content, bytes) else os.fstat(content.fileno()).st_size


def _upload(transport: Transport, file: IO[bytes]) -> str:
    """Send what the service lacks of a file; its SHA-256. Raises NotFoundError if the service takes no pieces."""
    sha256 = _sha256(file)
    size, path = _size(file), f"/v1/uploads/{sha256}"
    offset, failures = _received(transport, path), 0
    while offset < size:
        file.seek(offset)
        try:
            answer = transport.json(
                "PATCH", path, content=file.read(PIECE_BYTES), headers={"Upload-Offset": str(offset)}
            )
            offset, failures = int(answer["received_bytes"]), 0
        except (UnreachableError, ResponseError) as error:
            failures += 1
            if failures > MOST_FAILURES or not (isinstance(error, UnreachableError) or error.status in GO_ON_STATUSES):
                raise
            transport.sleep(BACKOFF.seconds(failures))
            offset = _received(transport, path)
    file.seek(0)
    return sha256


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _received(transport: Transport, path: str) -> int:
    try:
        return int(transport.json("GET", path)["received_bytes"])
    except NotFoundError:
        return 0
