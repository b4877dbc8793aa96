"""A sweep has a note and tags, and can be archived

Revision: 0021
Follows: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("note", sa.Text(), server_default="", nullable=False))
    op.add_column("sweeps", sa.Column("tags", DOCUMENT, server_default="[]", nullable=False))
    op.add_column("sweeps", sa.Column("archived", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    for column in ("archived", "tags", "note"):
        op.drop_column("sweeps", column)
