"""A sweep keeps the text that it was posted as

Revision: 0022
Follows: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("source", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("sweeps", "source")
