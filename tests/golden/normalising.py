"""Identifiers, times and figures of a run, replaced by what is the same in every run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_ID = re.compile(r"\b0[0-9A-HJKMNP-TV-Z]{25}\b")
_EPOCH = re.compile(r"\b1[789]\d{8}(?:\.\d+)?\b")
_ISO = re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00| UTC)?")
_SHOWN = re.compile(r"\b\d{1,2} [A-Z][a-z]{2} 20\d\d, \d\d:\d\d UTC")
_HTTP_DATE = re.compile(r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d GMT")
_AGE = re.compile(r"(?<=>)(?:just now|\d{1,2} (?:s|min|h) ago)(?=<)")
_PAGE_TOKEN = re.compile(r"(?<=page_token=)[\w-]+|(?<=\"next_page_token\": \")[^\"]+")
_REQUEST_ID = re.compile(r"(?<=\"request_id\": \")[^\"]+")
_STATIC = re.compile(r"(?<=\?v=)[0-9a-f]{16}\b")
_FLOAT = re.compile(r"(?<![\w.#-])-?\d+\.\d{7,}(?:e[+-]?\d+)?(?![\w.])")

DIGITS = 6
"""Significant digits of figures that are compared: libraries of linear algebra differ beyond them."""


END = 6
"""Characters of an identifier that a page adds to a name."""


class Normaliser:
    """Replaces what differs from run to run. One object names an identifier alike in all texts that it is given.

    `known` are identifiers that have a name already; others are numbered as they appear in a text.
    """

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self.known = known or {}

    def text(self, text: str) -> str:
        """`text` with identifiers, times and long figures replaced."""
        text = _ID.sub(self._namer(), text)
        for identifier, name in self.known.items():
            # Where names may be the same, a page adds the end of the identifier.
            text = text.replace(f"· {identifier[-END:]}", f"· (end of {name})")
        text = _ISO.sub("<time>", text)
        text = _SHOWN.sub("<time>", text)
        text = _HTTP_DATE.sub("<time>", text)
        text = _AGE.sub("(age)", text)
        text = _PAGE_TOKEN.sub("<page token>", text)
        text = _REQUEST_ID.sub("<request id>", text)
        text = _STATIC.sub("<hash>", text)
        text = _EPOCH.sub("<time>", text)
        return _FLOAT.sub(lambda found: _shortened(float(found.group())), text)

    def json(self, value: Any) -> str:
        """The same of a JSON value, a member a line, by name: PostgreSQL stores members in an order of its own."""
        return self.text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True))

    def _namer(self) -> Callable[[re.Match[str]], str]:
        unknown: dict[str, str] = {}

        def name(found: re.Match[str]) -> str:
            identifier = found.group()
            if identifier in self.known:
                return f"<{self.known[identifier]}>"
            return unknown.setdefault(identifier, f"<id {len(unknown) + 1}>")

        return name


def _shortened(value: float) -> str:
    return f"{value:.{DIGITS}g}"
