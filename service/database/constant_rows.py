"""What never changes of a row once it is committed: each process reads it once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import sqlalchemy as sa

T = TypeVar("T")


class ConstantRows(Generic[T]):
    """What `read` finds of a row by its id, or None, which is looked for again. Holds the `most` that were used last.

    Ids are unique among databases. Only rows that another transaction has committed may be asked for.
    """

    def __init__(self, read: Callable[[sa.Connection, str], T | None], most: int) -> None:
        self._read = read
        self._most = most
        self._known: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, connection: sa.Connection, row_id: str) -> T | None:
        """What is known of the row; None if there is none."""
        known = self.known(row_id)
        if known is not None:
            return known
        found = self._read(connection, row_id)
        if found is not None:
            with self._lock:
                self._known[row_id] = found
                if len(self._known) > self._most:
                    self._known.popitem(last=False)
        return found

    def known(self, row_id: str) -> T | None:
        """What has been read of the row and is still held."""
        with self._lock:
            known = self._known.get(row_id)
            if known is not None:
                self._known.move_to_end(row_id)
            return known
