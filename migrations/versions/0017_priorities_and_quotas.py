"""Sweeps have a priority, and projects quotas

Revision: 0017
Follows: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("projects", sa.Column("max_running_trials", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("max_priority", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("projects", "max_priority")
    op.drop_column("projects", "max_running_trials")
    op.drop_column("sweeps", "priority")
