"""A database of every released schema, filled, becomes today's with every value intact; and can be taken back."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.database.sessions import Database
from tests.service.old_rows import RELEASED, RENAMED


def written(database: Database, rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Insert `rows` by table, as a program of that time would; answers them as they are read back."""
    metadata = sa.MetaData()
    with database.engine.begin() as connection:
        metadata.reflect(connection)
        for name, values in rows.items():
            columns = set(metadata.tables[name].columns.keys())
            for row in values:
                assert set(row) == columns, f"{name}: a released schema's rows name every column"
                connection.execute(metadata.tables[name].insert().values(row))
    return stored(database, rows)


def stored(database: Database, rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What the database holds today of the columns that `rows` have."""
    found: dict[str, list[dict[str, Any]]] = {}
    with database.engine.connect() as connection:
        metadata = sa.MetaData()
        metadata.reflect(connection)
        for name, values in rows.items():
            table = metadata.tables[name]
            columns = [
                table.columns[column if column in table.columns else RENAMED[name, column]].label(column)
                for column in values[0]
            ]
            order = [column for column in table.primary_key.columns if column.name in values[0]]
            known = [sa.and_(*(column == row[column.name] for column in order)) for row in values]
            query = sa.select(*columns).where(sa.or_(*known)).order_by(*order)
            found[name] = [dict(row._mapping) for row in connection.execute(query)]
    return found


@pytest.mark.parametrize("revision", sorted(RELEASED))
def test_data_survives_the_way_up_and_down(database: Database, revision: str) -> None:
    rows = RELEASED[revision]
    database.downgrade("base")
    database.upgrade(revision)
    before = written(database, rows)
    assert {name: len(values) for name, values in before.items()} == {name: len(v) for name, v in rows.items()}

    database.upgrade()
    assert database.schema_is_current()
    assert stored(database, rows) == before

    database.downgrade(revision)
    assert stored(database, rows) == before


@pytest.mark.parametrize("revision", sorted(RELEASED))
def test_every_table_of_a_released_schema_is_filled(database: Database, revision: str) -> None:
    database.downgrade("base")
    database.upgrade(revision)
    tables = set(sa.inspect(database.engine).get_table_names()) - {"alembic_version"}
    assert tables == set(RELEASED[revision])
