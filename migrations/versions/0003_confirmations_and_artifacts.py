"""Confirmations and artifacts

Revision: 0003
Follows: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "confirmations",
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("confirms", sa.String(length=26), nullable=False),
        sa.Column("seeds", DOCUMENT, nullable=False),
        sa.Column("candidates", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_confirmations_sweep_id_sweeps", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["confirms"], ["sweeps.id"], name="fk_confirmations_confirms_sweeps", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep_id", name="pk_confirmations"),
    )
    op.create_index("ix_confirmations_confirms", "confirmations", ["confirms"])
    op.create_table(
        "artifacts",
        sa.Column("trial_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_artifacts_trial_id_trials", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trial_id", "name", name="pk_artifacts"),
    )


def downgrade() -> None:
    op.drop_table("artifacts")
    op.drop_index("ix_confirmations_confirms", "confirmations")
    op.drop_table("confirmations")
