"""How many trials alike workers could be given now."""

from __future__ import annotations

import sqlalchemy as sa

from service.database import counts
from service.leases import statements as sql
from service.leases.claimants import Claimant
from service.leases.claiming import lapses
from service.leases.claiming import statements as claiming


def of_sweep(row: sql.Row) -> int:
    """Trials that a sweep may begin now; `row` has the columns of `SWEEPS_WITH_TURN`."""
    return min(row.effective_parallel - row.running_count, counts.queued(row.counts))


def count_claimable(connection: sa.Connection, claimant: Claimant, at_most: int) -> int:
    """Trials that such workers could be given now if they had the slots, counted up to `at_most`.

    Without the quotas of projects that are not full yet: it may be more than they get.
    """
    given = claimant.parameters() | {"most": at_most}
    count = 0
    if lapses.are_due(connection, claimant):
        count = len(connection.scalars(claiming.LAPSED_SWEEPS, given).all())
        if not count:
            lapses.note_none_lapsed(connection, claimant)
    if count < at_most:
        count += sum(of_sweep(row) for row in connection.execute(claiming.SWEEPS_WITH_TURN, given))
    return min(count, at_most)
