"""Jinja for pages and reports: where their templates lie, and how what is put in is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
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


def html_environment(**names: object) -> Environment:
    """A new environment for HTML, whose templates may use `names`: everything that is put in is escaped."""
    made = plain_environment(shown, **names)
    made.autoescape = select_autoescape(default=True, default_for_string=True)
    made.filters["prose"] = _prose
    return made


def plain_environment(finalize: Callable[[Any], Any], **names: object) -> Environment:
    """A new environment for another text than HTML: `finalize` escapes what is put in."""
    made = Environment(
        loader=PackageLoader("service", "web/templates"),
        autoescape=False,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = cast("dict[str, object]", made.globals)
    known |= {"fmt": formatting, **names}
    return made


def context(*views: DataclassInstance) -> dict[str, object]:
    """What templates call the fields of views."""
    return {field.name: getattr(view, field.name) for view in views for field in fields(view)}


def shown(value: Any) -> Any:
    """What a template puts in: of text, no character that turns the direction of what follows or is not seen."""
    if not isinstance(value, str) or is_printable(value):
        return value
    safe = printable(value)
    return Markup(safe) if isinstance(value, Markup) else safe


def _prose(text: str) -> Markup:
    """Text with `names` in backquotes, as docstrings have it."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(each) if odd % 2 else each for odd, each in enumerate(pieces)
    )
