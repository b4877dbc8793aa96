"""`layersweep export` and `layersweep sweep export`: a sweep in a file, or in another tool."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from layersweep.cli.common import SERVER_DEFAULT, Server, SweepName, connect, hint, out
from layersweep.display.units import plural
from layersweep.errors import InvalidUsageError
from layersweep.sweep import Sweep


def export_study(
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


class Tracker(StrEnum):
    """A tool that a sweep can be written to."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


def export(
    sweep: SweepName,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="*.csv or *.jsonl.")] = None,
    sort: Annotated[str | None, typer.Option(help="As for `leaderboard`.", metavar="NAME")] = None,
    to: Annotated[Tracker | None, typer.Option("--to", help="In place of a file: a run for each ended trial.")] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="mlflow: its server or database (default: MLFLOW_TRACKING_URI)."),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="mlflow: the experiment (default: the sweep's name).")
    ] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="wandb: the project.")] = None,
    entity: Annotated[str | None, typer.Option(metavar="NAME", help="wandb: the user or team.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="wandb: into ./wandb, for `wandb sync`.")] = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Write every trial to a file, or those that have ended to MLflow or Weights & Biases."""
    if (file is None) == (to is None):
        raise InvalidUsageError("name a file (*.csv or *.jsonl), or a tool with --to mlflow or --to wandb")
    with connect(server) as client:
        found = client.sweep(sweep)
        if file is not None:
            found.export(file, sort=sort)
            out.print(Text(f"Wrote {file}."))
        elif to is Tracker.MLFLOW:
            _to_mlflow(found, tracking_uri, experiment)
        else:
            _to_wandb(found, project, entity, offline)


def _to_mlflow(sweep: Sweep, tracking_uri: str | None, experiment: str | None) -> None:
    from layersweep.exports.mlflow import write_experiment

    written = write_experiment(sweep, tracking_uri, name=experiment)
    out.print(Text(f"Wrote {plural(written, 'run')} to the experiment {experiment or sweep.name!r} of MLflow."))


def _to_wandb(sweep: Sweep, project: str | None, entity: str | None, offline: bool) -> None:
    from layersweep.exports.wandb import write_runs

    if project is None:
        raise InvalidUsageError("--to wandb needs a project: --project NAME")
    written = write_runs(sweep, project, entity=entity, offline=offline)
    out.print(Text(f"Wrote {plural(written, 'run')} to the project {project!r} of Weights & Biases."))
    if offline:
        hint("Send them: wandb sync --include-offline wandb/offline-run-*")
