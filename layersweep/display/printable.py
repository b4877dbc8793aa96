"""Text of others made safe to show: what controls a terminal or turns the reading direction is written as an escape.

A worker's name, a reason or a log can hold anything. `ESC ]` sets a terminal's title, U+202E shows what follows it
backwards: both make a reader see something else than what is there.
"""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u200b\u2028\u2029\u2060\ufeff\ud800-\udfff\U000e0000-\U000e007f"
_MISLEADING = re.compile(f"[{_CONTROLS}{_BIDI}{_INVISIBLE}]")


def printable(text: str) -> str:
    """`text` with `\\x1b` for an escape character, `\\u202e` for a turn of direction; tabs and line breaks stay."""
    return _MISLEADING.sub(_escape, text)


def printable_json(text: str) -> str:
    """JSON of the same meaning, with JSON's own escapes for what `printable` escapes."""
    return _MISLEADING.sub(_json_escape, text)


def is_printable(text: str) -> bool:
    """Whether `printable` leaves the text as it is."""
    return _MISLEADING.search(text) is None


def one_record(text: str) -> str:
    """`printable`, with every line after the first set in: so that no text can pass for another line of a log."""
    return printable(text).replace("\n", "\n    ")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
