"""Text of others in Markdown: it says what it says, and is no heading, link, element or table cell of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from layersweep.display.printable import printable

_SPECIAL = re.compile(r"[\\`*\[\]<>|~]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
_RUNS = re.compile(r"`+")
_SPACE = re.compile(r"\s*\n\s*")


def shown(value: Any) -> Any:
    """What the template puts in: of text, every character that Markdown reads as more than itself is escaped."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _SPECIAL.sub(lambda found: "\\" + found.group(), _one_line(value))


def code(value: object) -> Markup:
    """A code span, in a table too."""
    text = _one_line(str(value)).replace("|", "\\|")
    fence = "`" * (_longest_run(text) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{fence}{room}{text}{room}{fence}")


def block(text: str, language: str) -> Markup:
    """A fenced block of lines."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markup(f"{fence}{language}\n{printable(text)}{fence}")


def _one_line(text: str) -> str:
    return printable(_SPACE.sub(" ", text.strip()))


def _longest_run(text: str) -> int:
    runs: Iterable[str] = _RUNS.findall(text)
    return max(map(len, runs), default=0)
