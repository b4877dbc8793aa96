"""The attempts of a worker are found by when they ended

Revision: 0016
Follows: 0015
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_worker_id_ended_at", "attempts", ["worker_id", "ended_at"])


def downgrade() -> None:
    op.drop_index("ix_attempts_worker_id_ended_at", table_name="attempts")
