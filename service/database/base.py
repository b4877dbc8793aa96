"""What all tables share: names of constraints, the types of columns and their base class."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import JSON, Double, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.operators import OperatorType

from layersweep.json_values import JsonObject

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value: JSONB on PostgreSQL, JSON text on SQLite."""


class Base(DeclarativeBase):
    """Of every table."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {float: Double, JsonObject: Document}  # noqa: RUF012


def one_of(column: str, values: tuple[str, ...]) -> str:
    """The condition of a check: the column holds one of these values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


_State = TypeVar("_State", bound=StrEnum)


class OneOf(sa.TypeDecorator[_State]):
    """A short text that is read as a member of its enumeration.

    Where it is compared with members, these stand in the statement itself. Were they parameters, neither database could
    tell whether an index of some states holds the row, and SQLite would plan the statement anew each time it runs.
    """

    impl = sa.String(16)
    cache_ok = True

    class comparator_factory(sa.String.Comparator[Any], sa.TypeDecorator.Comparator[Any]):  # noqa: N801 # pyright: ignore[reportIncompatibleVariableOverride]
        __slots__ = ()

        def operate(self, op: OperatorType, *other: Any, **options: Any) -> sa.ColumnElement[Any]:
            return super().operate(op, *map(_written, other), **options)

    def __init__(self, states: type[_State]) -> None:
        super().__init__()
        self.states = states

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        # If an outer join finds no row there is no state.
        return {None: None, **{str(state): state for state in self.states}}.__getitem__


def _written(other: Any) -> Any:
    if isinstance(other, StrEnum):
        return sa.literal_column(f"'{other}'")
    return [_written(each) for each in other] if isinstance(other, tuple | list | set | frozenset) else other
