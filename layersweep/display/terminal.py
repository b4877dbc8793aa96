"""The consoles that everything is shown on: what comes from others is escaped here, in one place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NoReturn

import yaml
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Span, Text

from layersweep.display.printable import is_printable, printable, printable_json

LOG_WIDTH = 120
"""Columns if nothing is a terminal, as in the log of a CI job, and COLUMNS does not say how many."""


class Terminal(Console):
    """A console that shows no control character of a text as one, and reads no markup in it."""

    def __init__(self, **options: Any) -> None:
        if "COLUMNS" not in os.environ and not any(map(os.isatty, range(3))):
            options.setdefault("width", LOG_WIDTH)
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return super().render(_safe(renderable) if isinstance(renderable, Text) else renderable, options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the caller: by itself a console ends the process with the status 1."""
        raise BrokenPipeError


def show_text(text: str) -> None:
    """Print text that others wrote for people: a log, a report."""
    _write(printable(text))


def show_json(text: str) -> None:
    """Print JSON: of the same meaning, without a character that a terminal obeys."""
    _write(f"{printable_json(text)}\n")


def show_data(text: str) -> None:
    """Print what a program reads: unchanged if it goes to a file or a pipe, escaped if it goes to a terminal."""
    _write(printable(text) if sys.stdout is not None and sys.stdout.isatty() else text)


def show_yaml(document: Any) -> None:
    """Print a document as YAML, ready to paste."""
    _write(as_yaml(document))


def as_yaml(document: Any) -> str:
    """YAML as people write it; with YAML's own escapes if a text holds what a terminal obeys."""
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text if is_printable(text) else yaml.safe_dump(document, sort_keys=False, allow_unicode=False)


def _write(text: str) -> None:
    print(text, end="")


def _safe(text: Text) -> Text:
    if is_printable(text.plain):
        return text
    offsets = list(accumulate((len(printable(character)) for character in text.plain), initial=0))
    safe = text.blank_copy(printable(text.plain))
    safe.spans = [Span(offsets[span.start], offsets[min(span.end, len(text.plain))], span.style) for span in text.spans]
    return safe
