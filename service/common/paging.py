"""Keyset pages: an opaque token holds the key of the last row that was sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from fastapi import Query, Request, Response
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.common.storable import UnstorableError, check_storable
from service.errors import UnprocessableError

Row = TypeVar("Row")

PageSize = Annotated[int, Query(ge=1, le=1000, description="most items of a page")]
PageToken = Annotated[str | None, Query(max_length=2000, description="`next_page_token` of the page before")]


def encode_token(*key: str | int | float | bool | None) -> str:
    """Return the token for the rows after `key`."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_token(token: str, *types: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Return the key in `token`, or raise UnprocessableError if it is not a key of these types."""
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, RecursionError):
        key = None
    if (
        not isinstance(key, list)
        or len(key) != len(types)
        or any(not isinstance(value, kind) or not _storable(value) for value, kind in zip(key, types, strict=True))
    ):
        remedy = "send next_page_token of the page before as it was given, with the same sort and filter"
        raise UnprocessableError.at("/page_token", "page_token is not a token of this list", remedy)
    return tuple(key)


def first_page(
    rows: Sequence[Row], size: int, key: Callable[[Row], tuple[str | int, ...]]
) -> tuple[list[Row], str | None]:
    """The first `size` of the rows, of which one more was read than a page has, and the token of the next page.

    `key` is what the next page begins after.
    """
    kept = list(rows[:size])
    return kept, encode_token(*key(kept[-1])) if len(rows) > size else None


def oldest_page(
    session: Session,
    statement: sa.Select[Row],
    identifier: InstrumentedAttribute[str],
    *,
    page_size: int,
    page_token: str | None,
) -> tuple[list[Row], str | None]:
    """A page of the statement's rows by their id, the oldest first, and the token of the next."""
    if page_token is not None:
        (after,) = decode_token(page_token, str)
        statement = statement.where(identifier > after)
    rows = session.scalars(statement.order_by(identifier).limit(page_size + 1)).all()
    return first_page(rows, page_size, lambda row: (getattr(row, identifier.key),))


def newest_page(
    session: Session,
    statement: sa.Select[Row],
    identifier: InstrumentedAttribute[str],
    *,
    page_size: int,
    page_token: str | None,
) -> tuple[list[Row], str | None]:
    """A page of the statement's rows by their id, the newest first, and the token of the next."""
    if page_token is not None:
        (before,) = decode_token(page_token, str)
        statement = statement.where(identifier < before)
    rows = session.scalars(statement.order_by(identifier.desc()).limit(page_size + 1)).all()
    return first_page(rows, page_size, lambda row: (getattr(row, identifier.key),))


def link_next(request: Request, response: Response, token: str | None) -> None:
    """Name the next page in the `Link` header, if there is one."""
    if token is not None:
        url = request.url.include_query_params(page_token=token)
        response.headers["Link"] = f'<{url}>; rel="next"'


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        try:
            check_storable(value)
        except UnstorableError:
            return False
    return not isinstance(value, int) or -(2**31) <= value < 2**31
