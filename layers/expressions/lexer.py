"""The words of expressions: numbers, quoted names, paths and operators. Anything else is refused with its place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from layers.problems import cut

MAX_INTEGER = 2**63
KEYWORDS = frozenset({"and", "or", "not", "in", "if", "else"})
BOOLEANS = {"true": True, "false": False, "True": True, "False": False}

LANGUAGE = (
    "there are names, numbers, 'quoted' names, true and false; + - * / // % **; < <= == != >= >; and or not in;"
    " a if c else b; min max round_up floor ceil log2"
)


class ExpressionError(ValueError):
    """A text that is not an expression, with the place and what to try."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy or LANGUAGE
        super().__init__(f"{message} ({self.remedy})")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    """number, string, boolean, name, keyword, operator or end"""
    text: str
    start: int


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<string>'[^'\\]*'|"[^"\\]*")
    | (?P<name>[A-Za-z_]\w*(?:\.\w+)*(?:@[A-Za-z_]\w*)?)
    | (?P<operator>\*\*|//|<=|>=|==|!=|&&|\|\||[-+*/%<>()\[\],=&|!^])
    )""",
    re.VERBOSE | re.ASCII,
)


def tokens(text: str) -> Iterator[Token]:
    """The words of `text`, and an end. Raises ExpressionError."""
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            _refuse_character(text, position)
        kind = match.lastgroup
        token = match.group(kind)
        start = match.start(kind)
        position = match.end()
        if kind == "number" and position < end and (text[position].isalnum() or text[position] in "._"):
            raise ExpressionError(f"{token + text[position]!r} at character {start + 1} is not a number")
        if kind == "name":
            kind = "keyword" if token in KEYWORDS else "boolean" if token in BOOLEANS else "name"
        yield Token(kind, token, start)
    yield Token("end", "", end)


def _refuse_character(text: str, position: int) -> NoReturn:
    position += len(text[position:]) - len(text[position:].lstrip())
    character = text[position]
    remedy = ""
    if character in "'\"":
        remedy = "close the quoted name with the same quote; backslashes are not read"
    elif character == ".":
        remedy = "a path is written without spaces and begins with a name; attributes do not exist"
    raise ExpressionError(f"{character!r} at character {position + 1} is not part of the language", remedy)


def read_number(text: str) -> int | float:
    """A number as it is written. Raises ExpressionError if it is too large."""
    if text.isdigit():
        # Beyond 20 digits int() is not needed to know that it is too large.
        digits = text.lstrip("0") or "0"
        value = int(digits) if len(digits) <= 20 else MAX_INTEGER
        if value >= MAX_INTEGER:
            raise ExpressionError(f"the number {cut(text)} is too large", "integers end at 2 ** 63 - 1")
        return value
    number = float(text)
    if not math.isfinite(number):
        raise ExpressionError(f"the number {cut(text)} is too large", "numbers end at 1.8e308")
    return number
