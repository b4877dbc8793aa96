"""What the families of the client's calls share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layersweep.transport import Query, Transport


class Calls:
    """Calls of one service."""

    transport: Transport

    def pages(self, path: str, params: Query | None = None) -> Iterator[Any]:
        """The items of all pages of a list, fetched as they are needed."""
        return self.transport.pages(path, params)
