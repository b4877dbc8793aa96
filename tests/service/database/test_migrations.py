"""The migrations make the tables that the program works with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from service.database.base import Base
from service.database.sessions import Database


def test_the_migrated_schema_is_that_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert database.schema_is_current()


def test_check_constraints_and_partial_indexes_are_migrated(database: Database) -> None:
    # Autogeneration does not compare these.
    inspector = sa.inspect(database.engine)
    tables = ("sweeps", "trials", "asks")
    checks = {check["name"] for table in tables for check in inspector.get_check_constraints(table)}
    assert checks == {"ck_sweeps_state", "ck_trials_state", "ck_asks_state"}
    (index,) = [index for index in inspector.get_indexes("trials") if index["name"] == "ix_trials_claimable"]
    condition = str(index["dialect_options"][f"{database.dialect}_where"])
    assert "queued" in condition
    assert "running" in condition


def test_everything_can_be_taken_back_and_made_again(database: Database) -> None:
    database.downgrade("base")
    assert set(sa.inspect(database.engine).get_table_names()) <= {"alembic_version"}
    assert not database.schema_is_current()
    database.upgrade()
    assert database.schema_is_current()


def test_an_upgrade_of_a_current_database_changes_nothing(database: Database) -> None:
    database.upgrade()
    assert database.schema_is_current()


def test_processes_that_start_together_migrate_once(database: Database) -> None:
    database.downgrade("base")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: database.upgrade(), range(4)))
    assert database.schema_is_current()
