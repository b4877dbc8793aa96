"""Keyset pages: an opaque token holds the key of the last row that was sent."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from fastapi import Query, Request, Response

from service.common.storable import UnstorableError, check_storable
from service.errors import Problem, UnprocessableError

PageSize = Annotated[int, Query(ge=1, le=1000, description="most items of a page")]
PageToken = Annotated[str | None, Query(max_length=2000, description="`next_page_token` of the page before")]


def encode_token(*key: str | int | float | bool | None) -> str:
    """Return the token for the rows after `key`."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_token(token: str, *types: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Return the key in `token`, or raise Unprocessable where it is not a key of these types."""
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
        raise UnprocessableError(
            "page_token is not a token of this list", problems=[Problem("/page_token", token, remedy)]
        )
    return tuple(key)


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
