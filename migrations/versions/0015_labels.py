"""Workers have labels, and a sweep may ask for them

Revision: 0015
Follows: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("labels", DOCUMENT, nullable=True))
    op.add_column("workers", sa.Column("labels", DOCUMENT, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("workers", "labels")
    op.drop_column("sweeps", "labels")
