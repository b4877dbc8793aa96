"""Which trials alike workers are given next: found and locked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from service.leases import statements as sql
from service.leases.claimants import Claimant
from service.leases.claiming import room
from service.leases.claiming import statements as claiming
from service.leases.claiming.turns import Waiting, turns


def free_slots(connection: sa.Connection, workers: Collection[str]) -> dict[str, int]:
    """How many more leases each of the workers may hold; one that is unknown or has signed off is left out."""
    rows = connection.execute(claiming.FREE_SLOTS, {"of_workers": sorted(workers)})
    return {row.id: row.free for row in rows}


def next_trials(
    connection: sa.Connection, claimant: Claimant, most: int, *, lapsed_too: bool, sweeps: Collection[str] | None
) -> list[sql.Row]:
    """At most so many trials, in the order in which they are given: what has lapsed, then what is queued.

    `sweeps`: those that are locked; None: all. They may be too few, as `turns` says: then look again.
    """
    given: dict[str, object] = claimant.parameters() | {"most": most}
    lapsed, with_turn = claiming.LAPSED_TRIALS, claiming.SWEEPS_WITH_TURN
    if sweeps is not None:
        lapsed, with_turn = claiming.LAPSED_TRIALS_IN_SWEEPS, claiming.SWEEPS_WITH_TURN_IN_SWEEPS
        given["sweeps"] = sorted(sweeps)
    found = list(connection.execute(lapsed, given)) if lapsed_too else []
    if len(found) == most:
        return found
    waiting = [
        Waiting(row.id, row.priority, row.running_count, room.of_sweep(row), row.project_with_quota)
        for row in connection.execute(with_turn, given)
    ]
    return found + _queued(connection, turns(waiting, most - len(found)))


def _queued(connection: sa.Connection, in_turn: Sequence[str]) -> list[sql.Row]:
    """The oldest queued trials of these sweeps, one each time that a sweep has its turn."""
    of_sweep = {
        sweep_id: iter(connection.execute(claiming.QUEUED, {"of_sweep": sweep_id, "most": count}).all())
        for sweep_id, count in Counter(in_turn).items()
    }
    trials = (next(of_sweep[sweep_id], None) for sweep_id in in_turn)
    return [trial for trial in trials if trial is not None]
