"""Trials say how certain their metrics are

Revision: 0019
Follows: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_NOT_JUDGED = "state = 'complete' AND feasible IS NULL"


def upgrade() -> None:
    op.add_column("trials", sa.Column("noise", DOCUMENT, nullable=True))
    op.create_index(
        "ix_trials_not_judged",
        "trials",
        ["sweep_id"],
        sqlite_where=sa.text(_NOT_JUDGED),
        postgresql_where=sa.text(_NOT_JUDGED),
    )


def downgrade() -> None:
    op.drop_index("ix_trials_not_judged", "trials")
    op.drop_column("trials", "noise")
