"""The command line `layersweep`. One file a family of commands; expected errors end in a sentence and an exit code.

Their table: docs/command-line.md.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from layersweep import __version__, files
from layersweep.cli import access, databases, demo, export, fleet, processes, results, sweeps, trials, webhooks
from layersweep.cli.catalog import checkpoints, datasets, listings, schema
from layersweep.cli.common import Commands

app = typer.Typer(
    name="layersweep",
    cls=Commands,
    # Plain help: rich's has four columns, and cuts names at 80.
    rich_markup_mode=None,
    help="Which layer parameters should this Transformer have, on this device, for this data? Sweeps that measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=(
        "Exit codes: 0 done; 1 the service or the sweep said no; 2 a wrong call, a document with problems, or a file "
        "that cannot be read or written; 3 no Layersweep service answers; of `sweep assert`: 4 a limit is broken, "
        "5 one cannot be judged, 6 the baseline is of something else; 7 no trial is feasible; 8 the token is missing, "
        "wrong or lacks a scope; 9 a --timeout is over; 130 interrupted; 141 the reader of the output has gone."
    ),
)


def _version(value: bool) -> None:
    if value:
        print(f"layersweep {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Which layer parameters should this Transformer have, on this device, for this data? Sweeps that measure it."""
    files.read_variables(os.environ)


app.command("demo")(demo.demo)
app.command("serve")(processes.serve)
app.command("worker")(processes.worker)
app.add_typer(fleet.app, name="fleet")
app.add_typer(databases.app, name="db")
app.add_typer(access.tokens, name="token")
app.add_typer(access.projects, name="project")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(sweeps.app, name="sweep")
app.command("leaderboard")(results.leaderboard)
app.command("recommendation")(results.recommendation)
app.command("confirm")(results.confirm)
app.command("report")(results.report)
app.command("export")(export.export_study)
app.add_typer(trials.app, name="trial")
app.add_typer(datasets.datasets, name="dataset")
app.add_typer(checkpoints.checkpoints, name="checkpoint")
app.command("layers")(listings.layers)
app.command("presets")(listings.presets)
app.command("schema")(schema.schema)
app.command("workers")(listings.workers)
app.command("queue")(listings.queue)
