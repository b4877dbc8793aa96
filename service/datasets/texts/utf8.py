"""Text files as UTF-8: their characters some at a time, where a character lies, and pieces that end between words."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import UnprocessableError

CHUNK_BYTES = 1 << 22

PIECE_BYTES = 1 << 16
"""A tokenizer is given so much at once. It is part of what a dataset's content is: another size may cut elsewhere."""

_WHITESPACE = b" \t\n\r\v\f"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Part of a text file."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def beginning(self, count: int) -> str:
        """The text of at most `count` bytes; characters that are cut off are left out."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(min(count, len(self))).decode("utf-8", errors="ignore")


def begin(path: Path) -> int:
    """Where the text begins: behind the mark by which some editors say that a text is UTF-8."""
    with path.open("rb") as file:
        return len(codecs.BOM_UTF8) if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0


def byte_order_mark_notes(path: Path) -> tuple[str, ...]:
    """What is to be said of a file that begins with the mark."""
    return ("the file begins with a byte order mark (U+FEFF), which is left out",) if begin(path) else ()


def carriage_return_notes(path: Path) -> tuple[str, ...]:
    """What is to be said of a text whose lines end as on Windows, as its beginning shows."""
    with path.open("rb") as file:
        if b"\r\n" not in file.read(CHUNK_BYTES):
            return ()
    return ("lines end with a carriage return and a line feed, and both are kept: dos2unix takes the former out",)


def nul_notes(path: Path) -> tuple[str, ...]:
    """What is to be said of a file that is most likely no text, as its beginning shows."""
    with path.open("rb") as file:
        if b"\0" not in file.read(CHUNK_BYTES):
            return ()
    return ("the file holds NUL bytes, as pictures, archives and UTF-16 do and texts do not: they are kept",)


def refuse_utf16(path: Path) -> None:
    """Raise UnprocessableError for a text that says of itself that it is UTF-16."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise UnprocessableError("the file is UTF-16: convert it (iconv -f UTF-16 -t UTF-8) and send it again")


def characters(path: Path) -> Iterator[NDArray[np.uint32]]:
    """The file's code points, some at a time. Raises UnprocessableError if it is not UTF-8, with the byte."""
    offset, rest = begin(path), b""
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            read = file.read(CHUNK_BYTES)
            data = rest + read
            try:
                text, consumed = codecs.utf_8_decode(data, "strict", not read)
            except UnicodeDecodeError as error:
                raise UnprocessableError(
                    f"the file is not UTF-8: byte {offset + error.start} (counted from 0) is "
                    f"0x{data[error.start]:02x}. Convert it, or register it with tokenizer=byte",
                    byte_offset=offset + error.start,
                ) from None
            if text:
                yield np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            if not read:
                return
            offset, rest = offset + consumed, data[consumed:]


def count_characters(path: Path) -> int:
    """How many characters the file has. Raises UnprocessableError if it is not UTF-8, or holds NUL characters."""
    count = 0
    for chunk in characters(path):
        count += len(chunk)
        refuse_nul(bool((chunk == 0).any()))
    return count


def refuse_nul(found: bool) -> None:
    """Raise UnprocessableError if a text has NUL characters."""
    if found:
        raise UnprocessableError("the text holds NUL characters: register it with tokenizer=byte")


def byte_offsets(path: Path, places: Sequence[int]) -> list[int]:
    """The bytes at which characters begin, of ascending places; the place behind the last is the file's end."""
    found: list[int] = []
    offset = begin(path)
    passed = 0
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(CHUNK_BYTES):
            starts = np.flatnonzero((np.frombuffer(data, np.uint8) & 0xC0) != 0x80)
            while len(found) < len(places) and places[len(found)] < passed + len(starts):
                found.append(offset + int(starts[places[len(found)] - passed]))
            passed += len(starts)
            offset += len(data)
    return found + [offset] * (len(places) - len(found))


def pieces(text: ByteRange) -> Iterator[str]:
    """The text in pieces of about `PIECE_BYTES`, each but the first beginning with the end of a line if it can.

    A byte-level tokenizer reads them as it reads the whole: no word of its goes on over a line's end.
    """
    rest = b""
    with text.path.open("rb") as file:
        file.seek(text.start)
        remaining = len(text)
        while remaining or rest:
            read = file.read(min(PIECE_BYTES, remaining))
            remaining -= len(read)
            data = rest + read
            end = _end_of_piece(data) if remaining else len(data)
            yield data[:end].decode()
            rest = data[end:]


def _end_of_piece(data: bytes) -> int:
    """The last end of a line that follows on no other whitespace; without one the last character's end."""
    end = len(data)
    while (end := data.rfind(b"\n", 2, end)) > 0:
        before = end - (data[end - 1 : end] == b"\r")
        if data[before - 1] not in _WHITESPACE:
            return before
    end = len(data)
    while end > len(data) - 4 and data[end - 1] & 0xC0 == 0x80:
        end -= 1
    last = data[end - 1]
    width = 1 if last < 0x80 else 2 if last < 0xE0 else 3 if last < 0xF0 else 4
    return len(data) if end - 1 + width == len(data) else end - 1
