"""Parameters and functions that statements for both databases are built from."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


def text(name: str) -> sa.BindParameter[str]:
    """A parameter."""
    return sa.bindparam(name, type_=sa.String)


def integer(name: str) -> sa.BindParameter[int]:
    """A parameter."""
    return sa.bindparam(name, type_=sa.Integer)


def seconds(name: str) -> sa.BindParameter[float]:
    """A parameter."""
    return sa.bindparam(name, type_=sa.Double)


def is_one_of(column: sa.ColumnElement[str], name: str) -> sa.ColumnElement[bool]:
    """Whether the column is one of the texts of a parameter. One statement for any number of them: `IN` with its
    expanding parameter is written anew each time it runs."""
    return _one_of(column, sa.bindparam(name, type_=_Texts))


class _Texts(sa.TypeDecorator[list[str]]):
    """Any number of texts as one parameter: JSON."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: sa.Dialect) -> str:
        return json.dumps(value)

    process_literal_param = process_bind_param


class _one_of(FunctionElement[bool]):  # noqa: N801 - used like a function of SQL
    inherit_cache = True
    name = "one_of"


@compiles(_one_of, "sqlite")
def _one_of_sqlite(element: _one_of, compiler: SQLCompiler, **options: Any) -> str:
    column, texts = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({texts})))"


@compiles(_one_of, "postgresql")
def _one_of_postgresql(element: _one_of, compiler: SQLCompiler, **options: Any) -> str:
    column, texts = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} = ANY(ARRAY(SELECT jsonb_array_elements_text(CAST({texts} AS JSONB)))))"


class has_labels(FunctionElement[bool]):  # noqa: N801 - used like a function of SQL
    """Whether a mapping of texts is part of another one. Keys are labels: they hold no quotes."""

    inherit_cache = True
    name = "has_labels"
    type = sa.Boolean()


@compiles(has_labels, "sqlite")
def _has_labels_sqlite(element: has_labels, compiler: SQLCompiler, **options: Any) -> str:
    needed, offered = (compiler.process(clause, **options) for clause in element.clauses)
    return (
        f"NOT EXISTS (SELECT 1 FROM json_each({needed}) AS needed "
        f"WHERE json_extract({offered}, '$.\"' || needed.key || '\"') IS NOT needed.value)"
    )


@compiles(has_labels, "postgresql")
def _has_labels_postgresql(element: has_labels, compiler: SQLCompiler, **options: Any) -> str:
    needed, offered = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({needed} <@ CAST({offered} AS JSONB))"
