"""Rows as the routes and the scheduler make them, without either."""

from __future__ import annotations

import copy
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.ids import new_id
from service.database import counts
from service.database.models import Sweep, Trial
from service.database.sessions import Database, now
from service.events import events
from service.leases import claimants, workers
from service.leases import schemas as lease_schemas
from service.leases.claiming import room
from tests.service.registrations import CAPABILITIES, register

CONFIGURATION: dict[str, Any] = {
    "task": "probe",
    "model": {"hidden_size": 64, "num_layers": 2},
    "training": {},
    "inference": {"batch_size": 1, "sequence_length": 16},
}


def count_claimable(database: Database, worker_id: str) -> int:
    """The trials that the worker could be given now if it had the slots, counted up to a hundred."""

    def count(session: Session) -> int:
        claimant = claimants.find(session.connection(), worker_id)
        assert claimant is not None, "the worker has registered"
        return room.count_claimable(session.connection(), claimant, 100)

    return database.read(count)


class Rows:
    """Makes rows as the routes and the scheduler would, without a sampler."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def worker(self, *, slots: int = 64, **changes: Any) -> str:
        """Register a worker with one target; `changes` are to its capabilities. Returns its id."""
        return register(self.database, slots=slots, **changes)

    def sweep(
        self, queued: int = 0, *, parallel: int = 100, constraints: tuple[str, ...] = (), state: str = "active"
    ) -> str:
        """Make a sweep with `queued` trials; its objective is latency_ms_p50. Returns its id."""
        capabilities = lease_schemas.Capabilities(**CAPABILITIES)
        sweep_id = new_id()

        def write(session: Session) -> None:
            sweep = Sweep(
                id=sweep_id,
                name="sweep",
                task="probe",
                document={"constraints": list(constraints)},
                objectives=[{"metric": "latency_ms_p50", "goal": "minimize"}],
                budget={"trials": 1000, "parallel": parallel, "failures": 10, "wall_seconds": None},
                effective_parallel=parallel,
                sampler="random",
                sampler_reason="a test",
                space={"points": None, "feasible_share": 1.0, "sampled": True, "open_parameters": ["hidden_size"]},
                target=capabilities.model_dump(),
                target_key=workers.target_key(capabilities),
                state=state,
                counts={},
                created_at=now(session),
            )
            session.add(sweep)
            session.flush()
            events.append(session, sweep_id, "sweep.created", data={"name": "sweep"})

        self.database.write(write)
        self.queue(sweep_id, queued)
        return sweep_id

    def queue(self, sweep_id: str, number_of_trials: int) -> list[str]:
        """Queue more trials in the sweep. Returns their ids."""

        def write(session: Session) -> list[str]:
            sweep = session.get_one(Sweep, sweep_id)
            first = session.scalars(sa.select(sa.func.count()).where(Trial.sweep_id == sweep_id)).one()
            made: list[str] = []
            for number in range(first, first + number_of_trials):
                trial = Trial(
                    id=new_id(),
                    sweep_id=sweep_id,
                    number=number,
                    parameters={"hidden_size": 64},
                    configuration=copy.deepcopy(CONFIGURATION),
                    point_hash=f"{number:064x}",
                    reuse_key=f"{number:064x}",
                    target_key=sweep.target_key,
                    max_attempts=3,
                    created_at=now(session),
                )
                session.add(trial)
                session.flush()
                counts.add(session, sweep_id, {"queued": 1})
                events.append(session, sweep_id, "trial.queued", trial_id=trial.id, data={"number": number})
                made.append(trial.id)
            return made

        return self.database.write(write)

    def lapse(self, trial_id: str) -> None:
        """Let the lease of a trial run out."""
        self.update(Trial, trial_id, lease_expires_at=1.0)

    def update(self, table: type[Any], row_id: str, **values: Any) -> None:
        """Set columns of a row."""
        statement = sa.update(table).where(table.id == row_id).values(**values)
        self.database.write(lambda session: session.execute(statement).close())

    def trial(self, trial_id: str) -> Trial:
        """Read a trial."""
        return self.database.read(lambda session: session.get_one(Trial, trial_id))

    def find_sweep(self, sweep_id: str) -> Sweep:
        """Read a sweep."""
        return self.database.read(lambda session: session.get_one(Sweep, sweep_id))

    def kinds(self, sweep_id: str) -> list[str]:
        """The kinds of the sweep's events in order."""
        return [event.kind for event in self.database.read(lambda session: events.read(session, sweep_id, 0, 10_000))]
