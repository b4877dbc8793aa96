"""Make the rows of `killed/`, of all samplers or of some, with the version whose databases are to be kept.

    python -m tests.golden.make_killed [SAMPLER ...]

A process works on a sweep and ends itself with SIGKILL when two trials run, others are queued, one has ended that the
scheduler has not yet looked at, and the sweep has a leader. What is in its SQLite file then is written as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.database.sessions import Database
from service.settings import Settings
from tests.golden.killed_sweep import FOLDER, SAMPLERS
from tests.golden.sampled_points import document, driver, score

ENDED_TRIALS = 16


def work_until_killed(url: str, sampler: str) -> None:
    """Work on a sweep, and die."""
    database = Database(url)
    database.upgrade()
    going = driver(database, Settings(database_url=url, data_dir=Path(url.removeprefix("sqlite:///")).parent))
    sweep = going.post(document(SAMPLERS[sampler], "grid" if sampler == "grid" else "auto"))
    going.set(sweep, sampler=sampler)
    going.run(sweep, ENDED_TRIALS, score)
    leases = [lease for _ in range(2) if (lease := going.claim()) is not None]
    going.finish(leases[0], score)
    going.claim()
    os.kill(os.getpid(), signal.SIGKILL)


def stored_rows(url: str) -> dict[str, Any]:
    """The schema's revision and all rows by table, less what is empty."""
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    with engine.connect() as connection:
        metadata.reflect(connection)
        rows = {
            table.name: [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for table in metadata.sorted_tables
        }
    (revision,) = rows.pop("alembic_version")
    return {"revision": revision["version_num"], "tables": {name: found for name, found in rows.items() if found}}


def main(samplers: Collection[str]) -> None:
    for sampler in samplers:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/layersweep.db"
            died = subprocess.run([sys.executable, "-m", "tests.golden.make_killed", url, sampler], check=False)
            assert died.returncode == -signal.SIGKILL, died
            text = json.dumps(stored_rows(url), ensure_ascii=False)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{sampler}.json").write_text(text.replace("}, {", "},\n{") + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].startswith("sqlite:"):
        work_until_killed(*sys.argv[1:])
    else:
        main(sys.argv[1:] or list(SAMPLERS))
