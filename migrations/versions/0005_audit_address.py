"""The audit record says from which address a change came

Revision: 0005
Follows: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_records", sa.Column("address", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("audit_records", "address")
