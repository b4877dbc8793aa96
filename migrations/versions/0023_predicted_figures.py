"""A trial keeps the figures that stand in for a build before its training

Revision: 0023
Follows: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("trials", sa.Column("predicted", DOCUMENT, nullable=True))


def downgrade() -> None:
    op.drop_column("trials", "predicted")
