"""Lists that are read page by page, newest first or as they say: each page names the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Depends, Request, Response
from sqlalchemy.orm import Session

from service.auth.access import Caller
from service.common.paging import PageSize, PageToken, link_next
from service.common.schemas import Page, Schema
from service.http.callers import CallerDep
from service.http.dependencies import Services, ServicesDep

Row = TypeVar("Row")
Item = TypeVar("Item", bound=Schema)


class PageRead:
    """One page of a list, for a caller."""

    def __init__(
        self, request: Request, response: Response, services: Services, caller: Caller, size: int, token: str | None
    ) -> None:
        self.services = services
        self.project = caller.lists
        """Whose things are listed; None: those of all projects."""
        self.size = size
        self.token = token
        """Of the page before; None: this is the first."""
        self._request = request
        self._response = response

    def answer(
        self, read: Callable[[Session], tuple[Sequence[Row], str | None]], to_schema: Callable[[Row], Item]
    ) -> Page[Item]:
        """The rows that `read` gives as they cross HTTP, with the next page's token and its `Link`."""
        rows, token = self.services.database.read(read)
        link_next(self._request, self._response, token)
        return Page(items=[to_schema(row) for row in rows], next_page_token=token)


async def _page_read(
    request: Request,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    page_size: PageSize = 100,
    page_token: PageToken = None,
) -> PageRead:
    # Asynchronous, as what is not is sent to a thread.
    return PageRead(request, response, services, caller, page_size, page_token)


PageReadDep = Annotated[PageRead, Depends(_page_read)]
"""The type of a route's parameter that answers with pages of at most 100 items, or as many as were asked for."""
