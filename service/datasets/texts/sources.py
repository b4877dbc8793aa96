"""The text of an upload: one file as it is, several one behind the other, or a column of JSON Lines or Parquet."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from service.common.formatting import plural
from service.datasets.texts import utf8
from service.errors import PayloadTooLargeError, UnprocessableError

if TYPE_CHECKING:
    from pyarrow import parquet

PARQUET = b"PAR1"
MOST_LINE_BYTES = 64 << 20
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A text in one file, and what is to be said of how it came there."""

    path: Path
    notes: tuple[str, ...]


def one_text(files: Sequence[Path], column: str | None, scratch: Path, limit_bytes: int) -> Source:
    """The text of the files, in their order.

    A file or a document that does not end a line is given the end of one before the next; marks by which editors say
    that a file is UTF-8 are left out. With `column`, each file is JSON Lines or Parquet, and a row's text in it is a
    document. Raises UnprocessableError with the line or row and the remedy, PayloadTooLargeError if the text is
    larger than the limit.
    """
    if column is None and len(files) == 1:
        _refuse_parquet(files[0])
        return Source(files[0], (*utf8.byte_order_mark_notes(files[0]), *_notes(files[0])))
    path = scratch / "text"
    with path.open("wb") as made:
        text = _Joined(made, limit_bytes)
        for file in files:
            if column is None:
                _refuse_parquet(file)
                text.append_file(file)
            else:
                text.append_rows(_parquet(file, column) if _is_parquet(file) else _json_lines(file, column))
        notes = text.notes(column, len(files))
    return Source(path, (*notes, *_notes(path)))


def _notes(path: Path) -> tuple[str, ...]:
    return (*utf8.carriage_return_notes(path), *utf8.nul_notes(path))


class _Joined:
    """A text that is put together."""

    def __init__(self, file: IO[bytes], limit_bytes: int) -> None:
        self._file = file
        self._left = limit_bytes
        self._ends_a_line = True
        self._marks = 0
        self._documents = 0
        self._empty = 0

    def append_file(self, path: Path) -> None:
        self._end_line()
        start = utf8.begin(path)
        self._marks += start > 0
        size = path.stat().st_size
        self._take(size - start)
        with path.open("rb") as read:
            read.seek(start)
            shutil.copyfileobj(read, self._file, utf8.CHUNK_BYTES)
            if size > start:
                read.seek(-1, 2)
                self._ends_a_line = read.read(1) == b"\n"

    def append_rows(self, rows: Iterator[tuple[str, object]]) -> None:
        """Documents, each with the name of its row."""
        for row, document in rows:
            if document is None or document == "":
                self._empty += 1
                continue
            if not isinstance(document, str):
                raise UnprocessableError(f"{row}: the column holds {type(document).__name__}, not text")
            try:
                encoded = document.encode()
            except UnicodeEncodeError:
                raise UnprocessableError(f"{row}: half of a surrogate pair is no character") from None
            self._end_line()
            self._take(len(encoded))
            self._file.write(encoded)
            self._ends_a_line = encoded.endswith(b"\n")
            self._documents += 1

    def notes(self, column: str | None, files: int) -> tuple[str, ...]:
        self._file.flush()
        if column is None:
            marks = f"; {plural(self._marks, 'byte order mark')} left out" if self._marks else ""
            return (f"{plural(files, 'file')} one behind the other{marks}",)
        empty = f"; {plural(self._empty, 'row')} without text left out" if self._empty else ""
        return (f"{plural(self._documents, 'document')} of the column {column!r}, each ends a line{empty}",)

    def _end_line(self) -> None:
        if not self._ends_a_line:
            self._take(1)
            self._file.write(b"\n")

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise PayloadTooLargeError("the text of all files and rows is larger than what is accepted here")


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET


def _refuse_parquet(path: Path) -> None:
    if _is_parquet(path):
        raise UnprocessableError("the file is Parquet: name its column of text (`column`, such as text)")


def _json_lines(path: Path, column: str) -> Iterator[tuple[str, object]]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if len(line) > MOST_LINE_BYTES:
                raise UnprocessableError(f"line {number} is longer than {MOST_LINE_BYTES:,} bytes", line=number)
            if line.strip():
                yield f"line {number}", _value(line, number, column)


def _value(line: bytes, number: int, column: str) -> object:
    try:
        row: Any = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UnprocessableError(
            f"line {number} is not UTF-8: its byte {error.start} (counted from 0) is 0x{line[error.start]:02x}. "
            "Convert the file to UTF-8",
            line=number,
        ) from None
    except (ValueError, RecursionError) as error:
        raise UnprocessableError(
            f"line {number} is no JSON ({error}): with `column`, a file is Parquet, or JSON Lines of one object a line",
            line=number,
        ) from None
    if not isinstance(row, dict):
        raise UnprocessableError(f"line {number} is no object: write {{{column!r}: ...}}", line=number)
    if column not in row:
        raise UnprocessableError(
            f"line {number} has no {column!r}; it has: {', '.join(map(str, list(row)[:20])) or 'nothing'}", line=number
        )
    return row[column]


def _parquet(path: Path, column: str) -> Iterator[tuple[str, object]]:
    try:
        # An extra: fifty megabytes for those alone who have such files.
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise UnprocessableError(
            "this service does not read Parquet: install its extra `parquet` there, or send JSON Lines"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            yield from _rows(file, column)
    except (arrow.ArrowException, OSError) as error:
        raise UnprocessableError(f"the Parquet file cannot be read: {str(error).splitlines()[0][:200]}") from None


def _rows(file: parquet.ParquetFile, column: str) -> Iterator[tuple[str, object]]:
    names = file.schema_arrow.names
    if column not in names:
        raise UnprocessableError(f"the Parquet file has no column {column!r}; it has: {', '.join(names[:20])}")
    number = 0
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
        for value in batch.column(0):
            number += 1
            yield f"row {number}", value.as_py()
