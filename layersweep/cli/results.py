"""`layersweep leaderboard`, `layersweep recommendation`, `layersweep confirm`, `layersweep trial`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from layersweep import files
from layersweep.cli.common import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    SweepName,
    connect,
    err,
    find_sweep,
    hint,
    out,
    print_json,
    ready,
)
from layersweep.display import leaderboards, progress, recommendations, units
from layersweep.display.terminal import as_yaml, show_data, show_text
from layersweep.documents import nested
from layersweep.errors import Conflict, InvalidUsage, NotFound
from layersweep.records import Recommendation, TrialDetailRecord
from layersweep.sweep import Sweep

SHOWN_ROWS = 20

trials = typer.Typer(help="Look at single trials.", no_args_is_help=True)


def leaderboard(
    sweep: SweepName,
    sort: Annotated[
        str | None,
        typer.Option(help="A metric, a parameter, rank or number; -NAME for the greatest first.", metavar="NAME"),
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all", help=f"All rows, not only the first {SHOWN_ROWS}.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with every parameter and metric.")] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a sweep's trials, best first. --json and --csv print all of them."""
    if csv and as_json:
        raise InvalidUsage("--csv and --json exclude each other")
    with connect(server) as client:
        found = find_sweep(client, sweep)
        if csv:
            show_data(found.leaderboard_csv(sort=sort))
            return
        board = found.leaderboard(sort=sort, limit=None if all_rows or as_json else SHOWN_ROWS)
        if as_json:
            answer = {"sweep": found.id, "objectives": board.objectives, "total": board.total}
            print_json(answer | {"items": list(board), "next_page_token": None})
            return
        recommendation = recommended(found)
    chosen = recommendation["trial"]["trial"] if recommendation else None
    out.print(leaderboards.render(board, board.objectives, out, recommended=chosen))
    if recommendation:
        out.print(Text(f"Recommended: trial {recommendation['trial']['number']}. {recommendation['rule']}"))
    if len(board) < board.total:
        out.print(Text(f"{len(board)} of {board.total} trials; --all shows every one.", style="dim"))


def recommendation(
    sweep: SweepName,
    prefer: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="The best trial of the front in this metric.")
    ] = None,
    within: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC:1%", help="Only trials at most so much worse than the front's best."),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="OBJECTIVE:2", help="How much an objective counts; the others count 1.")
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--configuration", help="Print the configuration alone, as YAML to paste.")
    ] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Say which trial to take, by which rule, how sure it is, and what speaks for it."""
    if as_yaml and as_json:
        raise InvalidUsage("--configuration and --json exclude each other")
    with connect(server) as client:
        sweep_found = find_sweep(client, sweep)
        found = sweep_found.recommendation(
            prefer=prefer or (), within=_pairs("within", within), weights=_weights(weight)
        )
        dataset = sweep_found.record["dataset"]
    if as_json:
        print_json(found)
    elif as_yaml:
        show_text(configuration_yaml(found["configuration"], dataset))
    else:
        out.print(recommendations.render(found))


def confirm(
    sweep: SweepName,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Further trainings of each candidate.")] = 3,
    candidates: Annotated[
        int, typer.Option(min=1, max=20, help="How many trials: the recommended one, then the next by the rule.")
    ] = 3,
    trial: Annotated[list[int] | None, typer.Option(metavar="NUMBER", help="These trials instead.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it until it has ended.")] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Train the best trials again with further seeds, and score them on the test part that no sweep has seen."""
    with connect(server) as client:
        found = find_sweep(client, sweep)
        confirmation = found.confirm(seeds=seeds, candidates=candidates, trials=trial or ())
        if wait:
            progress.watch(client.sweep(confirmation["id"]), err if as_json else out)
            confirmation = next(each for each in found.confirmations() if each["id"] == confirmation["id"])
    if as_json:
        print_json(confirmation)
        return
    out.print(recommendations.render_confirmation(confirmation))
    if not wait:
        hint(f"Watch it: {ready(server, 'sweep', 'watch', confirmation['id'])}")


def report(
    sweep: SweepName,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it here: *.html, *.md or *.json say the format.")
    ] = None,
    server: Server = SERVER_DEFAULT,
) -> None:
    """The whole story of a sweep for somebody who was not there: what to take, why, how sure, and how to redo it."""
    formats = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}
    chosen = "markdown" if out_file is None else formats.get(out_file.suffix.lower())
    if chosen is None:
        raise InvalidUsage(f"{out_file}: end its name in .html, .md or .json")
    with connect(server) as client:
        text = find_sweep(client, sweep).report(chosen)
    if out_file is None:
        show_text(text)
        return
    with files.written(out_file) as stream:
        stream.write(text.encode(errors="replace"))
    out.print(Text(f"Wrote {out_file}."))


@trials.command("download")
def download(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="Id of a trial.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to put the files.")],
    server: Server = SERVER_DEFAULT,
) -> None:
    """Download what a trial on the front left: weights, ONNX graph, engine, configuration, and a loader."""
    with connect(server) as client:
        files = client.download_artifacts(trial, folder)
    for file in files:
        out.print(Text(f"{file}  {units.size(file.stat().st_size)}"))
    out.print(Text(f"Run it: python {folder / 'run.py'} {folder}", style="dim"))


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or []:
        metric, separator, amount = text.partition(":")
        if not separator:
            raise InvalidUsage(f"--{option} {text}: write METRIC:AMOUNT, for example validation_loss:1%")
        pairs[metric] = amount
    return pairs


def _weights(texts: list[str] | None) -> dict[str, float]:
    weights: dict[str, float] = {}
    for metric, amount in _pairs("weight", texts).items():
        try:
            weights[metric] = float(amount)
        except ValueError:
            raise InvalidUsage(f"--weight {metric}:{amount}: {amount!r} is not a number") from None
    return weights


def recommended(sweep: Sweep) -> Recommendation | None:
    """The recommended trial, None while there is none."""
    try:
        return sweep.recommendation()
    except (NotFound, Conflict):
        return None


@trials.command("show")
def show(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="Id of a trial.")],
    log: Annotated[bool, typer.Option("--log", help="Print the log of its newest attempt.")] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a trial: its metrics, attempts and complete configuration."""
    with connect(server) as client:
        record = client.trial(trial)
    if as_json:
        print_json(record)
    elif log:
        show_text(record["attempts"][-1]["log"] if record["attempts"] else "")
    else:
        _print_trial(record)


def configuration_yaml(configuration: dict[str, dict[str, object]], dataset: str | None = None) -> str:
    """A trial's complete configuration as the parts of a sweep document, ready to paste."""
    document: dict[str, object] = {"task": configuration["task"]}
    if dataset is not None:
        document["dataset"] = dataset
    for section in ("model", "training", "inference"):
        if configuration.get(section):
            document[section] = nested(configuration[section])
    return as_yaml(document)


def _print_trial(record: TrialDetailRecord) -> None:
    front = ", on the Pareto front" if record["on_front"] else ""
    rank = f", rank {record['rank']}{front}" if record["rank"] is not None else ""
    out.print(Text(f"Trial {record['number']} of sweep {record['sweep']}: {record['state']}{rank}", style="bold"))
    if record["reason"]:
        out.print(Text(record["reason"], style="yellow"))
    if record["reused_from"]:
        out.print(Text(f"Answered from trial {record['reused_from']}, which measured the same before."))
    for constraint, violation in (record["violations"] or {}).items():
        if violation > 0:
            out.print(Text(f"Breaks {constraint} by {violation:.4g}", style="yellow"))
    if record["metrics"]:
        table = Table.grid(padding=(0, 3, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        for name, value in record["metrics"].items():
            table.add_row(name, units.metric(name, value))
        out.print("\nMetrics", style="bold")
        out.print(table)
    for attempt in record["attempts"]:
        phases = ", ".join(f"{phase['phase']} {units.seconds(phase['seconds'])}" for phase in attempt["phases"])
        ended = attempt["outcome"] or "running"
        reason = f": {attempt['reason']}" if attempt["reason"] else ""
        out.print(Text(f"\nAttempt {attempt['attempt']} {ended}{reason}", style="bold"))
        out.print(Text(phases))
    out.print("\nConfiguration", style="bold")
    show_text(configuration_yaml(record["configuration"]))
