"""Uploads, written to disk as they arrive: a file is never held in memory, and never larger than allowed.

The disk is written in threads, a block at a time: while one is slow, other requests are answered.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from anyio import CancelScope, to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from layers.problems import below
from service.errors import PayloadTooLargeError, UnprocessableError, UnsupportedMediaTypeError
from service.http.error_handlers import SHOWN

BOUNDARY_CHARACTERS = 70
"""RFC 2046, 5.1.1; the parser raises at 257."""
FIELD_BYTES = 4096
"""The most that one field beside the file may hold."""

FIELDS = 32
FILES = 64
"""Of one name."""

OVERHEAD_BYTES = 64 * 1024
"""Boundaries, headers and fields may take this much beside the file."""

BLOCK_BYTES = 1 << 20
"""So much is gathered before a thread writes it."""


@asynccontextmanager
async def arriving(folder: Path) -> AsyncGenerator[IO[bytes]]:
    """A file in the folder for what arrives, with a `name`; gone when the context ends, whatever became of it."""
    file = await to_thread.run_sync(partial(tempfile.NamedTemporaryFile, dir=folder))
    try:
        yield file.file
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(file.close)


async def receive(chunks: AsyncIterator[bytes], file: IO[bytes], limit_bytes: int, what: str) -> bytes:
    """Write a body to the file and return its SHA-256. Raises PayloadTooLargeError above the limit."""
    digest, received = hashlib.sha256(), 0

    def write(block: bytes) -> None:
        digest.update(block)
        file.write(block)

    async for block in in_blocks(chunks):
        received += len(block)
        if received > limit_bytes:
            raise PayloadTooLargeError(f"{what} is larger than the {limit_bytes:,} bytes that are accepted here")
        await to_thread.run_sync(write, block)
    await to_thread.run_sync(file.flush)
    return digest.digest()


async def in_blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of `BLOCK_BYTES` or more, the last one smaller."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= BLOCK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


@asynccontextmanager
async def arriving_files(folder: Path) -> AsyncGenerator[Path]:
    """A folder in the folder for what arrives and what is made of it; gone when the context ends."""
    made = await to_thread.run_sync(partial(tempfile.TemporaryDirectory, dir=folder))
    try:
        yield Path(made.name)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(made.cleanup)


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file of a multipart body."""

    path: Path
    size_bytes: int


@dataclass
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    name: str = ""
    file: IO[bytes] | None = None
    file_bytes: int = 0
    value: bytearray = field(default_factory=bytearray)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)


class MultipartReader:
    """Reads one multipart body. Each part that is named among `file_fields` (with how many bytes all of that name may
    have) is a file and goes to the folder; the other fields are in `fields`.

    Raises PayloadTooLargeError above such a limit, UnprocessableError for a body that is not what it says it is, and
    UnsupportedMediaTypeError for a content type that is not multipart.
    """

    def __init__(self, content_type: str, folder: Path, file_fields: Mapping[str, int]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise UnsupportedMediaTypeError(
                "send multipart/form-data with the fields name, tokenizer, validation and file"
            )
        if len(boundary) > BOUNDARY_CHARACTERS:
            raise UnsupportedMediaTypeError(
                f"the boundary of a multipart body has at most {BOUNDARY_CHARACTERS} characters"
            )
        self.fields: dict[str, str] = {}
        self.files: dict[str, list[ReceivedFile]] = {}
        self._folder = folder
        self._limits = file_fields
        self._part = _Part()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._collect(lambda: self._part.header_name),
                "on_header_value": self._collect(lambda: self._part.header_value),
                "on_header_end": self._header,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._finish_part,
                "on_end": self._end,
            },
        )

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the body to its end."""
        received = 0
        try:
            async for block in in_blocks(chunks):
                received += len(block)
                if received > sum(self._limits.values()) + OVERHEAD_BYTES:
                    raise _too_large(sum(self._limits.values()))
                await to_thread.run_sync(self._parser.write, block)
            self._parser.finalize()
        except MultipartParseError as error:
            detail = f"the multipart body cannot be read: {error}"
            raise UnprocessableError.at("", detail, "send multipart/form-data with its boundary") from None
        finally:
            if self._part.file is not None:
                with CancelScope(shield=True):
                    await to_thread.run_sync(self._part.file.close)
        if not self._ended:
            raise UnprocessableError.at("", "the multipart body ends before its last boundary", "send all of it")

    def _collect(self, buffer: Callable[[], bytearray]) -> Callable[[bytes, int, int], None]:
        def collect(data: bytes, start: int, end: int) -> None:
            kept = buffer()
            kept += data[start:end]
            if len(kept) > FIELD_BYTES:
                raise UnprocessableError.at(
                    "", "a header of the multipart body is too long", f"at most {FIELD_BYTES} bytes"
                )

        return collect

    def _begin(self) -> None:
        if len(self.fields) >= FIELDS:
            raise UnprocessableError.at("", "the multipart body has too many fields", f"at most {FIELDS}")
        self._part = _Part()

    def _header(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("latin-1")
        part.header_name.clear()
        part.header_value.clear()

    def _headers(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part.name in self._limits:
            before = len(self.files.get(self._part.name, ()))
            if before >= FILES:
                detail = f"the multipart body has more than {FILES} files `{self._part.name}`"
                raise UnprocessableError.at(below("", self._part.name), detail, "send fewer")
            self._part.file = (self._folder / f"{self._part.name}-{before}").open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.file is not None:
            part.file_bytes += end - start
            before = sum(file.size_bytes for file in self.files.get(part.name, ()))
            if before + part.file_bytes > self._limits[part.name]:
                raise _too_large(self._limits[part.name], part.name)
            part.file.write(data[start:end])
            return
        part.value += data[start:end]
        if len(part.value) > FIELD_BYTES:
            detail = f"the field {part.name[:SHOWN]!r} is too long"
            raise UnprocessableError.at(below("", part.name[:SHOWN]), detail, f"at most {FIELD_BYTES} bytes")

    def _finish_part(self) -> None:
        part = self._part
        if part.file is not None:
            path = Path(part.file.name)
            part.file.close()
            part.file = None
            self.files.setdefault(part.name, []).append(ReceivedFile(path, part.file_bytes))
            return
        try:
            self.fields[part.name] = part.value.decode()
        except UnicodeDecodeError:
            detail = f"the field {part.name[:SHOWN]!r} is not UTF-8"
            raise UnprocessableError.at(below("", part.name[:SHOWN]), detail, "send text in UTF-8") from None

    def _end(self) -> None:
        self._ended = True


def _too_large(limit_bytes: int, name: str = "file") -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the {name} is larger than the {limit_bytes:,} bytes that are accepted here")
