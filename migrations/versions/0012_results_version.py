"""A sweep's version of results is a column: a claim compares it with the worker's

Revision: 0012
Follows: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SAID = {
    "sqlite": "CAST(json_extract(target, '$.results_version') AS INTEGER)",
    "postgresql": "CAST(target ->> 'results_version' AS INTEGER)",
}


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("results_version", sa.Integer(), nullable=True))
    op.execute(sa.text(f"UPDATE sweeps SET results_version = {_SAID[op.get_bind().dialect.name]}"))


def downgrade() -> None:
    op.drop_column("sweeps", "results_version")
