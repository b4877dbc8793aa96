"""`layersweep export`: a sweep in another tool's format."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from layersweep.cli.common import SERVER_DEFAULT, Server, SweepName, connect, out
from layersweep.display.units import plural


def export(
    sweep: SweepName,
    optuna: Annotated[
        str, typer.Option("--optuna", metavar="URL", help="Storage to write an Optuna study to: sqlite:///study.db")
    ],
    name: Annotated[str | None, typer.Option(help="The study's name (default: the sweep's name and id).")] = None,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Write a sweep as an Optuna study, for optuna.load_study and optuna-dashboard."""
    from layersweep.exports.optuna import write_study

    with connect(server) as client:
        study = write_study(client.sweep(sweep), optuna, name=name)
    out.print(Text(f"Wrote {plural(len(study.trials), 'trial')} as the study {study.study_name!r} to {optuna}."))
    out.print(Text(f"See it: optuna-dashboard {optuna}", style="dim"))
