"""A trial may train another one again with a seed of its own

Revision: 0011
Follows: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("replicate_of", sa.String(length=26), nullable=True))


def downgrade() -> None:
    op.execute(sa.text("DELETE FROM trials WHERE replicate_of IS NOT NULL"))
    op.drop_column("trials", "replicate_of")
