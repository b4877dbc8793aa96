"""A worker has slots, and an attempt may be claimed with the finish of another

Revision: 0007
Follows: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    # A worker of an older version executes one attempt at a time.
    op.add_column("workers", sa.Column("slots", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("attempts", sa.Column("after_trial_id", sa.String(length=26), nullable=True))
    op.add_column("attempts", sa.Column("after_attempt", sa.Integer(), nullable=True))
    op.create_index("ix_trials_running", "trials", ["worker_id"], sqlite_where=_RUNNING, postgresql_where=_RUNNING)


def downgrade() -> None:
    op.drop_index("ix_trials_running", table_name="trials")
    op.drop_column("attempts", "after_attempt")
    op.drop_column("attempts", "after_trial_id")
    op.drop_column("workers", "slots")
