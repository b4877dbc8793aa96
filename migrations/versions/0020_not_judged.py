"""Trials that cannot be judged are counted by their index

Revision: 0020
Follows: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INDEX = "ix_trials_not_judged"
_NOT_JUDGED = sa.text("state = 'complete' AND feasible IS NULL")


def upgrade() -> None:
    # SQLite prefers the index of states to one of sweeps alone, and reads every complete trial.
    _make("sweep_id", "state")


def downgrade() -> None:
    _make("sweep_id")


def _make(*columns: str) -> None:
    op.drop_index(INDEX, "trials")
    op.create_index(INDEX, "trials", list(columns), sqlite_where=_NOT_JUDGED, postgresql_where=_NOT_JUDGED)
