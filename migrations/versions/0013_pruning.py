"""Trainings may be stopped before their end: by which pruner, and what was decided about each

Revision: 0013
Follows: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("pruner", sa.String(length=8), server_default="none", nullable=False))
    op.add_column("sweeps", sa.Column("pruner_reason", sa.Text(), server_default="", nullable=False))
    op.add_column("attempts", sa.Column("early_metrics", DOCUMENT, nullable=True))
    op.create_table(
        "pruning_decisions",
        sa.Column("trial_id", sa.String(length=26), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rung", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("shown", sa.String(length=32), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("known", DOCUMENT, nullable=False),
        sa.Column("finished", sa.Integer(), nullable=False),
        sa.Column("predicted", sa.Double(), nullable=True),
        sa.Column("spread", sa.Double(), nullable=True),
        sa.Column("chance", sa.Double(), nullable=True),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id", "attempt"],
            ["attempts.trial_id", "attempts.attempt"],
            name="fk_pruning_decisions_trial_id_attempt_attempts",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_pruning_decisions_sweep_id_sweeps", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "attempt", "rung", name="pk_pruning_decisions"),
    )
    op.create_index("ix_pruning_decisions_sweep_id_rung", "pruning_decisions", ["sweep_id", "rung"])


def downgrade() -> None:
    op.drop_table("pruning_decisions")
    op.drop_column("attempts", "early_metrics")
    op.drop_column("sweeps", "pruner_reason")
    op.drop_column("sweeps", "pruner")
