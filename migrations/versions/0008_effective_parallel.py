"""A sweep says how many of its trials may run at once now: `budget.parallel`, or what `auto` stands for

Revision: 0008
Follows: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("effective_parallel", sa.Integer(), nullable=False, server_default="1"))
    sweeps = sa.table("sweeps", sa.column("budget", sa.JSON()), sa.column("effective_parallel", sa.Integer()))
    # Every sweep of before has a number.
    op.execute(sweeps.update().values(effective_parallel=sweeps.c.budget["parallel"].as_integer()))


def downgrade() -> None:
    op.drop_column("sweeps", "effective_parallel")
