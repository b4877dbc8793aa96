"""`layersweep trial`: single trials, named as SWEEP/NUMBER or by their ids."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from layersweep.cli.common import SERVER_DEFAULT, AsJson, Server, connect, hint, out, print_json, ready
from layersweep.cli.preferences import Prefer, SelectionPreferences, Weight, Within, wishes
from layersweep.cli.results import configuration_yaml
from layersweep.client import Client
from layersweep.display import units
from layersweep.display.terminal import show_text
from layersweep.errors import InvalidUsageError, NotFoundError
from layersweep.names import is_id, split_trial
from layersweep.records.noise import TrialNoise
from layersweep.records.sweeps import TrialDetailRecord

FORMATS = ("artifacts", "transformers")
TASKS_OF_TEXTS = ("causal_lm", "seq2seq")
"""Those whose models generate text."""

app = typer.Typer(help="Look at single trials.", no_args_is_help=True)

TrialName = Annotated[
    str,
    typer.Argument(metavar="TRIAL", help="SWEEP/NUMBER, the id of a trial, or SWEEP alone for its recommended trial."),
]


@app.command("show")
def show(
    trial: TrialName,
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    log: Annotated[bool, typer.Option("--log", help="Print the log of its newest attempt.")] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a trial: its metrics, attempts and complete configuration."""
    preferences = wishes(prefer, within, weight)
    with connect(server) as client:
        record = _find(client, server, "show", trial, preferences)
    if as_json:
        print_json(record)
    elif log:
        show_text(record["attempts"][-1]["log"] if record["attempts"] else "")
    else:
        _print_trial(record)


@app.command("promote")
def promote(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="SWEEP/NUMBER, or the id of a trial.")],
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Train a pruned trial to its end, from where it was stopped."""
    with connect(server) as client:
        found = client.trial(trial)
        record = client.sweep(found["sweep"]).promote(found["number"])
    if as_json:
        print_json(record)
        return
    out.print(Text(f"Trial {record['number']} of sweep {record['sweep']} is trained to its end."))
    hint(ready(server, "trial", "show", trial))


@app.command("download")
def download(
    trial: TrialName,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to put the files.")],
    format: Annotated[  # noqa: A002 - as it is typed
        str, typer.Option(help="artifacts: all its files; transformers: a checkpoint that from_pretrained reads.")
    ] = "artifacts",
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Download the artifacts of a trial on the front: weights, ONNX graph, engine, configuration, and a loader.

    As transformers: its model as a checkpoint of Hugging Face's library, with config, tokenizer and model card.
    """
    if format not in FORMATS:
        raise typer.BadParameter(" or ".join(FORMATS), param_hint="--format")
    preferences = wishes(prefer, within, weight)
    with connect(server) as client:
        record = _find(client, server, "download", trial, preferences)
        download = client.download_transformers if format == "transformers" else client.download_artifacts
        files = download(record["id"], folder)
    out.print(Text(f"Trial {record['number']} of sweep {record['sweep']}:"))
    for file in files:
        out.print(Text(f"{file}  {units.bytes_(file.stat().st_size)}"), soft_wrap=True)
    if format == "artifacts":
        run = shlex.join(["python", str(folder / "run.py")])
        hint(f"Measure it, with numpy and onnxruntime: {run}")
        if record["configuration"]["task"] in TASKS_OF_TEXTS:
            hint(f"Generate text: {run} --prompt TEXT --tokens 50")
    else:
        hint(f"{folder / 'README.md'} says where it is from, and how to load it")


def _find(client: Client, server: str, command: str, trial: str, chosen: SelectionPreferences) -> TrialDetailRecord:
    """The trial that is named, or the recommended one of the sweep that is. Raises InvalidUsageError, NotFoundError."""
    has_preferences = any(chosen.values())
    try:
        _, number = split_trial(trial)
    except InvalidUsageError as problem:
        newest = next(client.sweeps(), None)
        named = "SWEEP" if newest is None else newest.name
        raise InvalidUsageError(f"{problem}: {ready(server, 'trial', command, f'{named}/{trial}')}") from None
    if number is not None and not has_preferences:
        return client.trial(trial)
    if number is not None:
        raise InvalidUsageError(
            "--prefer, --within and --weight choose among the trials of a sweep: name the sweep alone"
        )
    if is_id(trial) and not has_preferences:
        with contextlib.suppress(NotFoundError):
            return client.trial(trial)
    try:
        sweep = client.sweep(trial)
    except NotFoundError:
        detail = f"there is neither a trial nor a sweep {trial!r}: name a trial as SWEEP/NUMBER"
        raise NotFoundError(404, {"type": "not-found", "detail": detail}) from None
    return client.trial(sweep.recommendation(**chosen)["trial"]["trial"])


def _interval(name: str, noise: TrialNoise | None) -> str:
    """`0.41 ms to 0.43 ms (95 %, 4 processes)`; empty of what was not timed."""
    figure = noise["figures"].get(name) if noise else None
    if figure is None:
        return ""
    low, high = (units.metric(name, figure[bound]) for bound in ("low", "high"))
    over = f", {figure['processes']} processes" if figure["processes"] > 1 else ""
    return f"{low} to {high} (95 %{over})"


def _print_trial(record: TrialDetailRecord) -> None:
    front = ", on the Pareto front" if record["on_front"] else ""
    rank = f", rank {record['rank']}{front}" if record["rank"] is not None else ""
    out.print(Text(f"Trial {record['number']} of sweep {record['sweep']}: {record['state']}{rank}", style="bold"))
    if record.get("replicate_of") is None:
        start = f'start_from: ["trial:{record["sweep"]}/{record["number"]}"]'
        out.print(Text(f"Id {record['id']}; {start} begins another sweep with it.", style="dim"), soft_wrap=True)
    if record["reason"]:
        out.print(Text(record["reason"], style="yellow"))
    if (predicted := record.get("predicted")) is not None:
        out.print(Text(units.sentence(predicted["reason"])))
    if record["reused_from"]:
        out.print(Text(f"Answered from trial {record['reused_from']}, which measured the same before."))
    noise = record.get("noise")
    undecided = noise["undecided"] if noise else []
    for constraint, violation in (record["violations"] or {}).items():
        if violation > 0 and constraint not in (record["reason"] or "") and constraint not in undecided:
            out.print(Text(f"Breaks {constraint} by {units.number(violation)}", style="yellow"))
    if record["metrics"]:
        table = Table.grid(padding=(0, 3, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        for name, value in record["metrics"].items():
            table.add_row(name, units.metric(name, value), Text(_interval(name, noise), style="dim"))
        out.print("\nMetrics", style="bold")
        out.print(table)
    for attempt in record["attempts"]:
        phases = ", ".join(f"{phase['phase']} {units.duration(phase['seconds'])}" for phase in attempt["phases"])
        ended = attempt["outcome"] or "running"
        reason = f": {attempt['reason']}" if attempt["reason"] else ""
        out.print(Text(f"\nAttempt {attempt['attempt']} {ended}{reason}", style="bold"))
        out.print(Text(phases))
    out.print("\nConfiguration", style="bold")
    show_text(configuration_yaml(record["configuration"]))
