"""A sweep may start from trials of earlier sweeps, which are kept with it

Revision: 0010
Follows: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("transfer", DOCUMENT, nullable=True))
    op.create_table(
        "earlier_trials",
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("from_sweep", sa.String(length=26), nullable=False),
        sa.Column("from_trial", sa.String(length=26), nullable=False),
        sa.Column("parameters", DOCUMENT, nullable=False),
        sa.Column("metrics", DOCUMENT, nullable=False),
        sa.Column("violations", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_earlier_trials_sweep_id_sweeps", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep_id", "position", name="pk_earlier_trials"),
    )


def downgrade() -> None:
    op.drop_table("earlier_trials")
    op.drop_column("sweeps", "transfer")
