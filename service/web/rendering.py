"""The templates of the pages, their static files, and the headers under which every page is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from layersweep import __version__
from service.common.templates import DOCUMENT_HEADERS, context, html_environment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WEB = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is logged in, as pages show it."""

    name: str
    project: str | None
    """None: all projects."""
    scopes: Sequence[str]


HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    **DOCUMENT_HEADERS,
}

VISITOR: ContextVar[Visitor | None] = ContextVar("visitor", default=None)
"""Who looks at the page that is rendered: every page says it at its top. None if the service has no tokens."""

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the page: it never changes while the service runs."""

    content: bytes
    media_type: str
    digest: str


@cache
def static_files() -> dict[str, StaticFile]:
    """The page's own files by their path below `static`. Nothing else can be asked for, whatever a path says."""
    return {
        path.relative_to(WEB / "static").as_posix(): StaticFile(
            content := path.read_bytes(), _MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:16]
        )
        for path in sorted((WEB / "static").rglob("*"))
        if path.suffix in _MEDIA_TYPES
    }


def static_response(name: str, if_none_match: str) -> Response | None:
    """The answer for a static file; None when there is none of this name."""
    file = static_files().get(name)
    if file is None:
        return None
    # Its address holds its hash, so that what was cached is never stale.
    headers = {
        "ETag": f'"{file.digest}"',
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    if headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def render(template: str, *views: DataclassInstance, status: int = 200, **more: object) -> HTMLResponse:
    """A page or a fragment of one, of what views have gathered. Everything that is put in is escaped."""
    text = environment().get_template(template).render(context(*views), **more)
    return HTMLResponse(text, status_code=status, headers=dict(HEADERS))


@cache
def environment() -> Environment:
    """The templates, with what all of them may use."""
    return html_environment(static=_static_url, version=__version__, visitor=VISITOR.get, may_change=_may_change)


def _may_change() -> bool:
    """Whether who looks at the page may change what it shows: what would be refused is not offered."""
    visitor = VISITOR.get()
    return visitor is None or "submit" in visitor.scopes


def _static_url(name: str) -> str:
    return f"/static/{name}?v={static_files()[name].digest}"
