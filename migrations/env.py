"""Alembic's environment: `Database.upgrade` hands in its connection; the `alembic` command connects by the settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from service.database import access_models, models, pruning_models
from service.database.base import Base
from service.database.sessions import Database
from service.settings import Settings

TABLES = (access_models, models, pruning_models)
"""What declares tables: imported, so that `Base.metadata` knows them all."""


def migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given: sa.Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    settings = Settings()
    with Database(settings.database_url).engine.begin() as connection:
        migrate(connection)
