"""Webhooks: what they are told, whether they are, and how the receiver answered

Revision: 0004
Follows: 0003

`webhooks.secret` becomes `salt`: what a secret is made from, together with the server's key. No program before this
revision could make a webhook.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
EVERY_EVENT = '["sweep.created", "sweep.active", "sweep.paused", "sweep.completed", "sweep.cancelled", "sweep.failed"]'


def upgrade() -> None:
    op.alter_column("webhooks", "secret", new_column_name="salt")
    # Rows that are there take the defaults; whoever makes new ones names every value.
    for column in (
        sa.Column("events", DOCUMENT, nullable=False, server_default=sa.text(f"'{EVERY_EVENT}'")),
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("made_by", sa.String(length=128), nullable=False, server_default=""),
    ):
        op.add_column("webhooks", column)
    op.add_column("webhook_deliveries", sa.Column("status", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("webhook_deliveries", "status")
    for column in ("made_by", "enabled", "events"):
        op.drop_column("webhooks", column)
    op.alter_column("webhooks", "salt", new_column_name="secret")
