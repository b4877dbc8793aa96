"""Jinja for pages and reports: where their templates lie, and how what is put in is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from layersweep.display.printable import is_printable, printable
from service.common import formatting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DOCUMENT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Under which every page and report is sent, beside its own Content-Security-Policy."""


_FOLDER = Path(__file__).parents[1] / "web" / "templates"
_SOURCES = {
    path.relative_to(_FOLDER).as_posix(): (path.read_text("utf-8"), str(path))
    for path in sorted(_FOLDER.rglob("*"))
    if path.is_file()
}
"""As they were when the process began: templates of another version ask for what this one's views do not gather."""


def html_environment(**names: object) -> Environment:
    """A new environment for HTML, whose templates may use `names`: everything that is put in is escaped."""
    made = plain_environment(shown, **names)
    made.autoescape = select_autoescape(default=True, default_for_string=True)
    made.filters["prose"] = _prose
    made.filters["breakable"] = _breakable
    return made


def plain_environment(finalize: Callable[[Any], Any], **names: object) -> Environment:
    """A new environment for another text than HTML: `finalize` escapes what is put in."""
    made = Environment(
        loader=FunctionLoader(_template),
        autoescape=False,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = cast("dict[str, object]", made.globals)
    known |= {"fmt": formatting, **names}
    return made


def _template(name: str) -> tuple[str, str, Callable[[], bool]] | None:
    found = _SOURCES.get(name)
    return None if found is None else (*found, lambda: True)


def context(*views: DataclassInstance) -> dict[str, object]:
    """What templates call the fields of views."""
    return {field.name: getattr(view, field.name) for view in views for field in fields(view)}


def shown(value: Any) -> Any:
    """What a template puts in: of text, no character that turns the direction of what follows or is not seen."""
    if not isinstance(value, str) or is_printable(value):
        return value
    safe = printable(value)
    return Markup(safe) if isinstance(value, Markup) else safe


def _breakable(name: str) -> Markup:
    """A long name that may be broken after its dots and underscores."""
    safe = str(escape(name))
    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", safe))


def _prose(text: str) -> Markup:
    """Text with `names` in backquotes, as docstrings have it."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(each) if odd % 2 else each for odd, each in enumerate(pieces)
    )
