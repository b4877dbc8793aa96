"""Where a command acts: one rule for all of them.

1. What the call names: `--server URL`; of `token` and `project` also `--data-dir DIR` or `--database`.
2. Else the service that LAYERSWEEP_SERVER names.
3. Else http://127.0.0.1:8420. Only `token` and `project`, by which the first token is made before any service runs, act
   on the database of the settings here: LAYERSWEEP_DATABASE_URL, else LAYERSWEEP_DATA_DIR, else the folder `data`.

`token` and `project` say which service or database it was. No command makes a database to read from it or to revoke.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from layersweep.cli.common import SERVER_VARIABLE
from layersweep.errors import InvalidUsageError

RemoteServer = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar=SERVER_VARIABLE,
        help="Ask this service, as LAYERSWEEP_TOKEN (scope admin). Without it: act on the database of the settings.",
    ),
]
OwnDataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data folder of the settings (LAYERSWEEP_DATA_DIR); implies --database."),
]
OwnDatabase = Annotated[
    bool,
    typer.Option(
        "--database",
        help="Act on the database of the settings (LAYERSWEEP_DATABASE_URL, LAYERSWEEP_DATA_DIR), and ask no service.",
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command acts: a service by its address, or (None) the database of the settings here."""

    server: str | None
    data_dir: Path | None

    @classmethod
    def of(cls, server: str | None, data_dir: Path | None, database: bool) -> Place:
        """The place that an invocation and its environment name. Raises InvalidUsageError where it names two."""
        names_database = data_dir is not None or database
        if not names_database:
            return cls(server, None)
        if server is not None and server != os.environ.get(SERVER_VARIABLE):
            raise InvalidUsageError(
                "--server names a service, --data-dir and --database a database: leave one of them out"
            )
        return cls(None, data_dir)
