"""A database whose service was killed in the middle of a sweep: stored as rows by table, loaded, and gone on with.

`python -m tests.golden.make_killed [SAMPLER ...]` made the rows, with the service as it was then. They stay as they
are: that today's service goes on from them is what is tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.database.sessions import Database
from service.settings import Settings
from tests.golden.sampled_points import rounded, score
from tests.service.sweep_driver import Driver

FOLDER = Path(__file__).with_name("killed")
SAMPLERS = {"tpe": "conditional", "nsga2": "per_layer", "grid": "flat", "surrogate": "conditional"}
"""Of each killed sweep: its sampler and its document."""
NEXT_POINTS = 10


def load(database: Database, sampler: str) -> None:
    """Fill a database of the schema of that time, and bring it up to date."""
    stored = json.loads((FOLDER / f"{sampler}.json").read_text())
    database.downgrade("base")
    database.upgrade(stored["revision"])
    metadata = sa.MetaData()
    with database.engine.begin() as connection:
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            if rows := stored["tables"].get(table.name):
                # A migration may have made a row itself: the default project.
                connection.execute(table.delete())
                connection.execute(table.insert(), rows)
    database.upgrade()


def go_on(database: Database, settings: Settings) -> dict[str, Any]:
    """What of the killed sweep runs again, and the next points of it."""
    driver = Driver(database, settings)
    driver.worker = driver.add_worker("the next")
    (sweep,) = _sweeps(database)
    known = len(driver.sequence(sweep))
    driver.run(sweep, NEXT_POINTS, score)
    asks = driver.sequence(sweep)[known:]
    new = [[rounded(suggestions), rejection] for suggestions, rejection in asks]
    assert len(new) >= NEXT_POINTS, "the sweep does not go on"
    return {
        "next": new[:NEXT_POINTS],
        "trials": [[trial.state, trial.attempt, trial.pareto_rank] for trial in driver.trials(sweep)],
    }


def _sweeps(database: Database) -> list[str]:
    query = sa.text("SELECT id FROM sweeps")
    return database.read(lambda session: [row.id for row in session.execute(query)])
