"""What all tables share: types of columns."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.states import OPEN_TRIALS, SweepState, TrialState
from service.database.models import Sweep, Trial
from service.database.sessions import Database
from service.leases.claiming import statements as claiming
from tests.service.sweep_rows import add_sweep


def test_states_stand_in_the_statements_that_compare_them(database: Database) -> None:
    """SQLite plans a statement anew each time that such a parameter could decide which index it may use."""
    compared = sa.select(Trial.id).where(
        Trial.state == TrialState.RUNNING, Trial.state != TrialState.FAILED, Trial.state.in_(OPEN_TRIALS)
    )
    for statement in (compared, claiming.SWEEPS_WITH_TURN):
        parameters = statement.compile(dialect=database.engine.dialect).params
        assert not [name for name in parameters if name.startswith("state")]


def test_states_are_compared_as_members_and_as_texts(database: Database) -> None:
    def read(session: Session) -> list[int]:
        found = [
            Sweep.state == SweepState.ACTIVE,
            Sweep.state == "active",
            Sweep.state.in_([SweepState.ACTIVE, SweepState.PAUSED]),
            Sweep.state.in_(["active"]),
            Sweep.state.not_in((SweepState.PAUSED,)),
            Sweep.state == sa.bindparam("state", SweepState.ACTIVE),
            Sweep.state != SweepState.ACTIVE,
            Sweep.state.in_([]),
        ]
        return [len(session.execute(sa.select(Sweep.id).where(each)).all()) for each in found]

    database.write(lambda session: add_sweep(session))
    assert database.read(read) == [1, 1, 1, 1, 1, 1, 0, 0]
