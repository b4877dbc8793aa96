"""A sweep counts the device time that its attempts have taken

Revision: 0009
Follows: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("device_seconds", sa.Double(), nullable=False, server_default="0"))
    sweeps = sa.table("sweeps", sa.column("id", sa.String()), sa.column("device_seconds", sa.Double()))
    trials = sa.table("trials", sa.column("id", sa.String()), sa.column("reused_from", sa.String()))
    metrics = sa.table(
        "trial_metrics",
        sa.column("trial_id", sa.String()),
        sa.column("sweep_id", sa.String()),
        sa.column("name", sa.String()),
        sa.column("value", sa.Double()),
    )
    # Of a trial that was reused, another sweep has paid.
    taken = (
        sa.select(sa.func.coalesce(sa.func.sum(metrics.c.value), 0.0))
        .join(trials, trials.c.id == metrics.c.trial_id)
        .where(metrics.c.sweep_id == sweeps.c.id, metrics.c.name == "device_seconds", trials.c.reused_from.is_(None))
        .correlate(sweeps)
        .scalar_subquery()
    )
    op.execute(sweeps.update().values(device_seconds=taken))


def downgrade() -> None:
    op.drop_column("sweeps", "device_seconds")
