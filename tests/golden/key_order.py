"""The order of keys in JSON values, kept on PostgreSQL as SQLite keeps it.

JSONB stores the keys of an object in an order of its own, so that a document, the columns of a CSV and the rows of a
page come in another order on PostgreSQL. Everything else is the same: one recording serves both, and the order is
given back where values are read.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import set_json_dumps, set_json_loads
from sqlalchemy import event


class KeyOrder:
    """Remembers in which order the keys of an object were written."""

    def __init__(self) -> None:
        self._orders: dict[frozenset[str], list[str]] = {}
        self._places: dict[str, int] = {}

    def dumps(self, value: Any) -> str:
        self._learn(value)
        return json.dumps(value)

    def loads(self, text: str | bytes) -> Any:
        return json.loads(text, object_hook=self._ordered)

    def _learn(self, value: Any) -> None:
        if isinstance(value, dict):
            keys = [str(key) for key in value]
            self._orders[frozenset(keys)] = keys
            for key in keys:
                self._places.setdefault(key, len(self._places))
            for each in value.values():
                self._learn(each)
        elif isinstance(value, list | tuple):
            for each in value:
                self._learn(each)

    def _ordered(self, value: dict[str, Any]) -> dict[str, Any]:
        keys = self._orders.get(frozenset(value)) or sorted(value, key=lambda key: self._places.get(key, 0))
        return {key: value[key] for key in keys}


def keep_key_order(engine: sa.Engine) -> None:
    """Give JSON values back with their keys in the order in which they were written."""
    order = KeyOrder()

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        if engine.dialect.name == "postgresql":
            set_json_dumps(order.dumps, connection)
            set_json_loads(order.loads, connection)
