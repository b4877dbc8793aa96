"""Texts in several files, in JSON Lines and in Parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from service.datasets.texts.sources import one_text
from service.errors import PayloadTooLargeError, UnprocessableError

BOM = b"\xef\xbb\xbf"


def text_of(tmp_path: Path, *contents: bytes, column: str | None = None, limit: int = 1 << 20) -> tuple[bytes, str]:
    """The text that files become, and what is said of it."""
    files = [tmp_path / f"file-{number}" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    source = one_text(files, column, tmp_path, limit)
    return source.path.read_bytes(), "; ".join(source.notes)


def json_lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows: dict[str, list[Any]]) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    sink = io.BytesIO()
    written.write_table(arrow.table(rows), sink)
    return sink.getvalue()


def test_one_file_is_the_text_itself(tmp_path: Path) -> None:
    assert text_of(tmp_path, b"a\r\nb") == (
        b"a\r\nb",
        "lines end with a carriage return and a line feed, and both are kept: dos2unix takes the former out",
    )


def test_a_file_that_is_most_likely_no_text_is_said_to_be_so(tmp_path: Path) -> None:
    picture = b"\x89PNG\x1a\n\0\0\0\rIHDR"
    assert text_of(tmp_path, picture) == (
        picture,
        "the file holds NUL bytes, as pictures, archives and UTF-16 do and texts do not: they are kept",
    )


def test_files_follow_one_another_each_ending_a_line(tmp_path: Path) -> None:
    text, notes = text_of(tmp_path, BOM + b"one", b"two\n", b"", BOM + b"three")
    assert text == b"one\ntwo\nthree"
    assert notes == "4 files one behind the other; 2 byte order marks left out"


def test_rows_of_json_lines_are_documents(tmp_path: Path) -> None:
    first = BOM + json_lines({"text": "one"}, {"text": "two\n", "id": 3}) + b"\n\r\n"
    text, notes = text_of(tmp_path, first, json_lines({"text": None}, {"text": ""}, {"text": "drei ü"}), column="text")
    assert text.decode() == "one\ntwo\ndrei ü"
    assert notes == "3 documents of the column 'text', each ends a line; 2 rows without text left out"


def test_a_column_of_parquet_is_read_beside_json_lines(tmp_path: Path) -> None:
    table = parquet({"text": ["one", None, "two"], "other": [1, 2, 3]})
    text, notes = text_of(tmp_path, table, json_lines({"text": "three"}), column="text")
    assert text == b"one\ntwo\nthree"
    assert "3 documents" in notes
    with pytest.raises(UnprocessableError, match="no column 'body'; it has: text, other"):
        text_of(tmp_path, table, column="body")
    with pytest.raises(UnprocessableError, match="row 1: the column holds int, not text"):
        text_of(tmp_path, table, column="other")
    with pytest.raises(UnprocessableError, match="name its column"):
        text_of(tmp_path, table)
    with pytest.raises(UnprocessableError, match="cannot be read"):
        text_of(tmp_path, table[:-20], column="text")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\nno json\n', "line 2 is no JSON"),
        (b"[1, 2]\n", "line 1 is no object"),
        (b'{"body": "a"}\n', "line 1 has no 'text'; it has: body"),
        (b'{"text": 3}\n', "line 1: the column holds int"),
        (b'{"text": "\\ud800"}\n', "line 1: half of a surrogate pair"),
        (b'{"text": "\xff"}\n', "line 1 is not UTF-8: its byte 10"),
        (b"[" * 100_000, "line 1 is no JSON"),
    ],
)
def test_rows_that_are_no_text_are_refused_with_their_place(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnprocessableError) as refused:
        text_of(tmp_path, content, column="text")
    assert said in str(refused.value)


def test_what_files_hold_together_is_limited(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLargeError):
        text_of(tmp_path, b"x" * 60, b"y" * 60, limit=100)
    with pytest.raises(PayloadTooLargeError):
        text_of(tmp_path, json_lines({"text": "x" * 60}, {"text": "y" * 60}), column="text", limit=100)
