"""The tables

Revision: 0001
Follows: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("task", sa.String(length=32), nullable=False),
        sa.Column("tokenizer", sa.String(length=32), nullable=True),
        sa.Column("builtin", sa.Boolean(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("facts", DOCUMENT, nullable=False),
        sa.Column("parts", DOCUMENT, nullable=False),
        sa.Column("profile", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("project", "name", name="uq_datasets_project_name"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", DOCUMENT, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("project", "key", name="pk_idempotency_keys"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("device", DOCUMENT, nullable=False),
        sa.Column("device_uuid", sa.String(length=128), nullable=False),
        sa.Column("targets", DOCUMENT, nullable=False),
        sa.Column("versions", DOCUMENT, nullable=False),
        sa.Column("registered_at", sa.Double(), nullable=False),
        sa.Column("last_seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_index("ix_workers_device_uuid", "workers", ["device_uuid"], unique=False)
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("task", sa.String(length=32), nullable=False),
        sa.Column("dataset_id", sa.String(length=26), nullable=True),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("objectives", DOCUMENT, nullable=False),
        sa.Column("budget", DOCUMENT, nullable=False),
        sa.Column("sampler", sa.String(length=32), nullable=False),
        sa.Column("sampler_reason", sa.Text(), nullable=False),
        sa.Column("space", DOCUMENT, nullable=False),
        sa.Column("target_runtime", sa.String(length=32), nullable=True),
        sa.Column("target", DOCUMENT, nullable=True),
        sa.Column("target_key", sa.String(length=300), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("running_count", sa.Integer(), nullable=False),
        sa.Column("rejected_count", sa.Integer(), nullable=False),
        sa.Column("counts", DOCUMENT, nullable=False),
        sa.Column("event_counter", sa.Integer(), nullable=False),
        sa.Column("scheduled_sequence", sa.Integer(), nullable=False),
        sa.Column("leader_id", sa.String(length=64), nullable=True),
        sa.Column("leader_epoch", sa.Integer(), nullable=False),
        sa.Column("leader_expires_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('active', 'paused', 'completed', 'cancelled', 'failed')", name=op.f("ck_sweeps_state")
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_sweeps_dataset_id_datasets"),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_project_id", "sweeps", ["project", "id"], unique=False)
    op.create_index("ix_sweeps_state", "sweeps", ["state"], unique=False)
    op.create_table(
        "events",
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("trial_id", sa.String(length=26), nullable=True),
        sa.Column("data", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_events_sweep_id_sweeps", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "sequence", name="pk_events"),
    )
    op.create_table(
        "study_attributes",
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("value", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_study_attributes_sweep_id_sweeps", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep_id", "name", name="pk_study_attributes"),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("parameters", DOCUMENT, nullable=False),
        sa.Column("configuration", DOCUMENT, nullable=False),
        sa.Column("point_hash", sa.String(length=64), nullable=False),
        sa.Column("reuse_key", sa.String(length=64), nullable=False),
        sa.Column("reused_from", sa.String(length=26), nullable=True),
        sa.Column("started_from", sa.String(length=200), nullable=True),
        sa.Column("target_key", sa.String(length=300), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("charged_attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(length=26), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("phase", sa.String(length=16), nullable=True),
        sa.Column("progress", DOCUMENT, nullable=True),
        sa.Column("feasible", sa.Boolean(), nullable=True),
        sa.Column("violations", DOCUMENT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("metrics", DOCUMENT, nullable=False),
        sa.Column("pareto_rank", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'complete', 'infeasible', 'pruned', 'failed', 'cancelled')",
            name=op.f("ck_trials_state"),
        ),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_trials_sweep_id_sweeps", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("sweep_id", "number", name="uq_trials_sweep_id_number"),
        sa.UniqueConstraint("sweep_id", "point_hash", name="uq_trials_sweep_id_point_hash"),
    )
    op.create_index(
        "ix_trials_claimable",
        "trials",
        ["target_key", "id"],
        unique=False,
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index("ix_trials_reuse_key", "trials", ["reuse_key"], unique=False)
    op.create_index(
        "ix_trials_sweep_id_pareto_rank_number", "trials", ["sweep_id", "pareto_rank", "number"], unique=False
    )
    op.create_index("ix_trials_sweep_id_state_number", "trials", ["sweep_id", "state", "number"], unique=False)
    op.create_table(
        "asks",
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("ask", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trial_id", sa.String(length=26), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("suggestions", DOCUMENT, nullable=False),
        sa.Column("distributions", DOCUMENT, nullable=False),
        sa.Column("system_attrs", DOCUMENT, nullable=False),
        sa.Column("told", DOCUMENT, nullable=True),
        sa.Column("told_order", sa.Integer(), nullable=True),
        sa.Column("rejection", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('asked', 'told')", name=op.f("ck_asks_state")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_asks_sweep_id_sweeps", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_asks_trial_id_trials", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "ask", name="pk_asks"),
    )
    op.create_index("ix_asks_trial_id", "asks", ["trial_id"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("trial_id", sa.String(length=26), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(length=26), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("finish_hash", sa.String(length=64), nullable=True),
        sa.Column("phases", DOCUMENT, nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_attempts_trial_id_trials", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name="fk_attempts_worker_id_workers"),
        sa.PrimaryKeyConstraint("trial_id", "attempt", name="pk_attempts"),
    )
    op.create_table(
        "measurements",
        sa.Column("trial_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("data", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name="fk_measurements_trial_id_trials", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "name", name="pk_measurements"),
    )
    op.create_table(
        "trial_metrics",
        sa.Column("trial_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sweep_id", sa.String(length=26), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["sweeps.id"], name="fk_trial_metrics_sweep_id_sweeps", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["trials.id"], name="fk_trial_metrics_trial_id_trials", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "name", name="pk_trial_metrics"),
    )
    op.create_index(
        "ix_trial_metrics_sweep_id_name_value_trial_id",
        "trial_metrics",
        ["sweep_id", "name", "value", "trial_id"],
        unique=False,
    )
    op.create_table(
        "reports",
        sa.Column("trial_id", sa.String(length=26), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("values", DOCUMENT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trial_id", "attempt"],
            ["attempts.trial_id", "attempts.attempt"],
            name="fk_reports_trial_id_attempt_attempts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("trial_id", "attempt", "step", name="pk_reports"),
    )


def downgrade() -> None:
    op.drop_table("reports")
    op.drop_index("ix_trial_metrics_sweep_id_name_value_trial_id", table_name="trial_metrics")
    op.drop_table("trial_metrics")
    op.drop_table("measurements")
    op.drop_table("attempts")
    op.drop_index("ix_asks_trial_id", table_name="asks")
    op.drop_table("asks")
    op.drop_index("ix_trials_sweep_id_state_number", table_name="trials")
    op.drop_index("ix_trials_sweep_id_pareto_rank_number", table_name="trials")
    op.drop_index("ix_trials_reuse_key", table_name="trials")
    op.drop_index(
        "ix_trials_claimable",
        table_name="trials",
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_table("trials")
    op.drop_table("study_attributes")
    op.drop_table("events")
    op.drop_index("ix_sweeps_state", table_name="sweeps")
    op.drop_index("ix_sweeps_project_id", table_name="sweeps")
    op.drop_table("sweeps")
    op.drop_index("ix_workers_device_uuid", table_name="workers")
    op.drop_table("workers")
    op.drop_table("idempotency_keys")
    op.drop_table("datasets")
