"""A worker that stops in good order signs off: its GPU is free at once

Revision: 0006
Follows: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("signed_off_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "signed_off_at")
