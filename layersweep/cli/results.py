"""`layersweep leaderboard`, `recommendation`, `confirm` and `report`: what came out of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.text import Text

from layersweep import documents, files
from layersweep.cli.common import (
    EXIT_REFUSED,
    SERVER_DEFAULT,
    AsJson,
    Server,
    SweepName,
    connect,
    connect_patiently,
    err,
    hint,
    out,
    print_json,
    ready,
)
from layersweep.cli.preferences import Prefer, SelectionPreferences, Weight, Within, options, wishes
from layersweep.display import leaderboards, progress, recommendations, units
from layersweep.display.terminal import as_yaml, show_data, show_text
from layersweep.errors import ConflictError, InvalidUsageError, NotFoundError
from layersweep.leaderboard import Leaderboard, RowOptions
from layersweep.records.recommendations import Recommendation
from layersweep.records.sweeps import TRIAL_STATES, Configuration, TrialState
from layersweep.sweep import Sweep

SHOWN_ROWS = 20


def leaderboard(
    sweep: SweepName,
    sort: Annotated[
        str | None,
        typer.Option(help="A metric, a parameter, rank or number; -NAME for the greatest first.", metavar="NAME"),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only trials whose metric or parameter compares so: 'latency_ms_p50<=2', mlp.kind=GatedMLP; again: "
            "all must hold.",
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            autocompletion=lambda: TRIAL_STATES,
            help=f"Only trials in this state; again: in one of these. {', '.join(TRIAL_STATES)}.",
        ),
    ] = None,
    feasible: Annotated[
        bool | None,
        typer.Option("--feasible/--infeasible", help="Only trials that keep all constraints, or break one."),
    ] = None,
    undecided: Annotated[
        bool, typer.Option("--undecided", help="Only trials that cannot be judged: a limit lies within the noise.")
    ] = False,
    front: Annotated[bool, typer.Option("--front", help="Only the trials on the Pareto front.")] = False,
    all_rows: Annotated[bool, typer.Option("--all", help=f"All rows, not only the first {SHOWN_ROWS}.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="The metrics and parameters to show, in place of the sweep's objectives, the metrics of its "
            "constraints, the usual ones and what varies.",
        ),
    ] = None,
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with every parameter and metric.")] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a sweep's trials, best first, and which is recommended. --json and --csv print all that the filters keep."""
    if csv and as_json:
        raise InvalidUsageError("--csv and --json exclude each other")
    if columns is not None and (csv or as_json):
        raise InvalidUsageError("--columns is for the table: --csv and --json print every parameter and metric")
    if undecided and feasible is not None:
        raise InvalidUsageError("--undecided and --feasible or --infeasible exclude each other")
    chosen = wishes(prefer, within, weight)
    kept: RowOptions = {
        "state": cast("list[TrialState]", state) or None,
        "feasible": "undecided" if undecided else feasible,
        "on_front": True if front else None,
        "where": where or (),
    }
    with connect(server) as client:
        found = client.sweep(sweep)
        if csv:
            show_data(found.leaderboard_csv(sort=sort, **kept))
            return
        board = found.leaderboard(sort=sort, **kept, limit=None if all_rows or as_json else SHOWN_ROWS)
        if as_json:
            answer = {"sweep": found.id, "objectives": board.objectives, "total": board.total, "noise": board.noise}
            print_json(answer | {"items": list(board), "next_page_token": None})
            return
        recommendation = recommended(found, chosen)
        if recommendation is None:
            progress.show_broken_constraints(found, out)
    if not board and any(value not in (None, ()) for value in kept.values()):
        out.print("No trial keeps these filters.")
        return
    marked = recommendation["trial"]["trial"] if recommendation else None
    chosen_columns = () if columns is None else full_columns(found, board, columns)
    out.print(
        leaderboards.render(
            board,
            board.objectives,
            out,
            summary=board.summary_metrics,
            columns=chosen_columns,
            recommended=marked,
            sort=sort,
        )
    )
    if recommendation:
        why = ready(server, "recommendation", sweep, *options(chosen))
        out.print(Text(f"Recommended: trial {recommendation['trial']['number']}. Why, and how sure: {why}"))
        if under_limits := recommendation.get("under_limits"):
            out.print(Text(units.sentence(under_limits["says"]), style="yellow"))
    if board.noise and board.noise["says"]:
        out.print(Text(board.noise["says"], style="yellow" if board.noise["level"] == "warning" else "dim"))
    if len(board) < board.total:
        out.print(Text(f"{len(board)} of {board.total} trials; --all shows every one.", style="dim"))
    if board:
        number = recommendation["trial"]["number"] if recommendation else board[0]["number"]
        hint(f"Look closer: {ready(server, 'trial', 'show', f'{sweep}/{number}')}")


def recommendation(
    sweep: SweepName,
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    alone: Annotated[
        bool,
        typer.Option("--configuration", help="Print only the configuration, as YAML to paste; with --json as JSON."),
    ] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Say which trial to take, by which rule, how certain that is, and on which evidence."""
    chosen = wishes(prefer, within, weight)
    with connect_patiently(server) as client:
        sweep_found = client.sweep(sweep)
        found = sweep_found.recommendation(**chosen)
        dataset = sweep_found.record["dataset"]
    if as_json:
        print_json(found["configuration"] if alone else found)
    elif alone:
        show_text(configuration_yaml(found["configuration"], dataset))
    else:
        out.print(recommendations.render(found))
        if any(chosen.values()):
            hint(f"Its report: {ready(server, 'report', sweep, *options(chosen))}")
    if alone and found["baseline"]:
        # Whoever takes the parameters alone, a job for one, should still meet what speaks against them.
        for line in found["baseline"]["says"]:
            err.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)


def confirm(
    sweep: SweepName,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Further trainings of each candidate.")] = 3,
    candidates: Annotated[
        int, typer.Option(min=1, max=20, help="How many trials: the recommended one, then the next by the rule.")
    ] = 3,
    trial: Annotated[list[int] | None, typer.Option(metavar="NUMBER", help="These trials instead.")] = None,
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it until it has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="With --wait: seconds to watch at most; the confirmation goes on.")
    ] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Train the best trials again with further seeds, and score them on the test split that no sweep has seen.

    With --wait the exit code is 0 if the confirmation completed, 9 after --timeout.
    """
    if timeout is not None and not wait:
        raise InvalidUsageError("--timeout is of --wait: give both")
    chosen = wishes(prefer, within, weight)
    with connect(server) as client:
        found = client.sweep(sweep)
        confirmation = found.confirm(seeds=seeds, candidates=candidates, trials=trial or (), **chosen)
        if wait:
            progress.watch(client.sweep(confirmation["id"]), err if as_json else out, timeout_seconds=timeout)
            ended = found.confirmations(**chosen)
            confirmation = next(each for each in ended if each["id"] == confirmation["id"])
    if as_json:
        print_json(confirmation)
    else:
        out.print(recommendations.render_confirmation(confirmation))
    if wait and confirmation["state"] != "completed":
        raise typer.Exit(EXIT_REFUSED)
    if not wait and not as_json:
        hint(f"Watch it: {ready(server, 'sweep', 'watch', confirmation['id'])}")


def report(
    sweep: SweepName,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it here: *.html, *.md or *.json say the format.")
    ] = None,
    prefer: Prefer = None,
    within: Within = None,
    weight: Weight = None,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Report a sweep for somebody who was not there: which trial to take, why, how certain, and how to reproduce it."""
    formats = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}
    chosen = "markdown" if out_file is None else formats.get(out_file.suffix.lower())
    if chosen is None:
        raise InvalidUsageError(f"{out_file}: end its name in .html, .md or .json")
    preferences = wishes(prefer, within, weight)
    with connect(server) as client:
        text = client.sweep(sweep).report(chosen, **preferences)
    if out_file is None:
        show_text(text)
        return
    with files.written(out_file) as stream:
        stream.write(text.encode(errors="replace"))
    out.print(Text(f"Wrote {out_file}."), soft_wrap=True)


def full_columns(sweep: Sweep, board: Leaderboard, columns: str) -> list[str]:
    """The metrics and parameters that a list names, in full. Raises InvalidUsageError for one that no row has."""
    names = [name.strip() for name in columns.split(",") if name.strip()]
    known = {*board.summary_metrics, *(name for row in board for name in (*row["metrics"], *row["parameters"]))}
    shapes = cast("list[dict[str, str]]", sweep.record["document"]["inference"].get("shapes", []))
    first = f"@{shapes[0]['name']}" if shapes else ""
    full = [name if name in known else name + first for name in names]
    for name, written in zip(full, names, strict=True):
        if board and name not in known:
            listed = ", ".join(sorted(known))
            raise InvalidUsageError(f"--columns: no trial has a metric or parameter {written!r}; one of: {listed}")
    if not names:
        raise InvalidUsageError("--columns names nothing: metrics and parameters, with commas between them")
    return list(dict.fromkeys(full))


def recommended(sweep: Sweep, chosen: SelectionPreferences | None = None) -> Recommendation | None:
    """The recommended trial, as wished; None while there is none."""
    try:
        return sweep.recommendation(**(chosen or wishes(None, None, None)))
    except (NotFoundError, ConflictError):
        return None


def configuration_yaml(configuration: Configuration, dataset: str | None = None) -> str:
    """A trial's complete configuration as the parts of a sweep document, ready to paste."""
    return as_yaml(documents.of_configuration(configuration, dataset))
