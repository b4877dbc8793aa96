"""The database's URL: read, or refused, or shown, in no case with a password."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

POSTGRESQL = ("postgresql", "postgres")
_SECRETS = ("password", "sslpassword", "passfile", "sslkey")
"""Parameters of a PostgreSQL URL's query that are nobody's business."""

ENCODING = (
    "percent-encode what is special in a user's name or password: @ is %40, : is %3A, / is %2F, ? is %3F, # is %23, "
    "% is %25"
)


def parse(url: str) -> sa.URL:
    """The URL of a database that this program can use. Raises ValueError, which repeats nothing of the URL."""
    parsed = _read(url)
    backend = parsed.get_backend_name()
    if backend in POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ValueError(f"{backend} is not a database that Layersweep knows: use sqlite:///file or postgresql://...")
    if not parsed.database or ":memory:" in parsed.database:
        raise ValueError("SQLite needs a file: several threads share it (sqlite:///path/to/layersweep.db)")
    return parsed


def shown(url: str) -> str:
    """The URL without what is secret in it; nothing after the scheme if it is not sure what that is."""
    try:
        parsed = _read(url)
    except ValueError:
        return f"{_scheme(url)}://..."
    return parsed.update_query_dict(dict.fromkeys(set(_SECRETS) & set(parsed.query), "hidden")).render_as_string()


def _read(url: str) -> sa.URL:
    unusable = f"it cannot be read as {_scheme(url)}://user:password@host:port/database: {ENCODING}"
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # Its words would be parts of the URL.
        raise ValueError(unusable) from None
    # A second @ is one of the password's: what follows it was taken for the host and the database.
    if parsed.get_backend_name() in POSTGRESQL and url.count("@") > (parsed.username is not None):
        raise ValueError(unusable)
    return parsed


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return scheme if separator and scheme.replace("+", "").isalnum() else "postgresql"
