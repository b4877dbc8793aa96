"""`layersweep sweep ...`: submit, validate, list, show, watch and steer sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, cast

import typer
from rich.table import Table
from rich.text import Text

from layersweep.cli.checks.assertions import assert_
from layersweep.cli.checks.sweep_check import check
from layersweep.cli.common import (
    EXIT_NONE_FEASIBLE,
    EXIT_REFUSED,
    SERVER_DEFAULT,
    AsJson,
    File,
    Server,
    SweepName,
    Yes,
    ask_before_deleting,
    connect,
    connect_patiently,
    err,
    hint,
    out,
    print_json,
    print_json_list,
    ready,
)
from layersweep.cli.export import export
from layersweep.cli.sweep_annotations import annotate
from layersweep.display import progress, units
from layersweep.display.estimates import cost_in_words
from layersweep.display.listings import Listing
from layersweep.display.spaces import prediction_in_words, print_space, transformers_in_words, unpredicted_in_words
from layersweep.display.terminal import show_yaml
from layersweep.errors import InvalidUsageError
from layersweep.files import name_of
from layersweep.records.sweep_requests import SweepFilters
from layersweep.records.sweeps import (
    ENDED_SWEEP_STATES,
    SWEEP_STATES,
    ProblemNote,
    SweepDetailRecord,
    SweepOrder,
    SweepPreview,
    SweepRecord,
    SweepState,
)
from layersweep.sweep import Sweep

app = typer.Typer(help="Submit, watch and control sweeps.", no_args_is_help=True)


@app.command()
def submit(
    file: File,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it until it has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="With --wait: seconds to watch at most; the sweep goes on.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=-10, max=10, help="Trials of sweeps with a higher one are executed first.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Tag it; again: several.")] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Submit a sweep document.

    With --wait the exit code is 0 if it completed, 7 if no trial of it is feasible, 1 if it failed or was cancelled, 9
    after --timeout."""
    if timeout is not None and not wait:
        raise InvalidUsageError("--timeout is of --wait: give both")
    with connect_patiently(server) as client:
        sweep = client.submit(file, priority=priority, tags=tag or [])
        if not as_json:
            out.print(Text(f"Accepted as {sweep.id} ({sweep.name})."))
            print_space(out, sweep.record["space"])
            out.print(Text(f"Sampler: {sweep.record['sampler']} ({sweep.record['sampler_reason']})"))
            _print_notes(sweep.record.get("notes", []))
            if not wait:
                hint(f"Watch it: {ready(server, 'sweep', 'watch', sweep.id)}")
        if wait:
            progress.watch(sweep, err if as_json else out, timeout_seconds=timeout)
        if as_json:
            print_json(sweep.record)
        if wait:
            _finish(server, sweep, quiet=as_json)


@app.command()
def validate(file: File, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Check a sweep document and describe its space; nothing is stored."""
    with connect(server) as client:
        preview: SweepPreview = client.validate(file)
    if as_json:
        print_json(preview)
        return
    out.print(Text(f"{name_of(file)} is a valid sweep document.", style="green"))
    print_space(out, preview["space"])
    if (share := preview.get("transformers")) is not None:
        out.print(Text(transformers_in_words(share, preview["space"])))
    for prediction in preview.get("predictions", []):
        out.print(Text(prediction_in_words(prediction)))
    for line in unpredicted_in_words(preview.get("unpredicted", [])):
        out.print(Text(line))
    out.print(Text(cost_in_words(preview["estimate"], preview["document"]["budget"])))
    out.print(Text(f"Sampler: {preview['sampler']} ({preview['sampler_reason']})"))
    _print_notes(preview["notes"])


app.command()(check)
app.command("assert")(assert_)
app.command()(annotate)


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            autocompletion=lambda: SWEEP_STATES,
            help=f"Only sweeps in this state; again: in one of these. {', '.join(SWEEP_STATES)}.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only sweeps of this task.")] = None,
    name: Annotated[str | None, typer.Option(help="Only sweeps whose name holds this text.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only sweeps with this tag.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Only those that are archived.")] = False,
    sort: Annotated[
        SweepOrder | None, typer.Option(help="By created_at or name; -created_at and -name turn it.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the first to list.")] = 50,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """List sweeps, newest first."""
    records: list[SweepRecord] = []
    wanted: SweepFilters = {"task": task, "name": name, "tag": tag, "archived": "only" if archived else "hide"}
    wanted |= {"state": cast("list[SweepState]", state) or None, "sort": sort}
    with connect(server) as client:
        for sweep in client.sweeps(**wanted):
            records.append(sweep.record)
            if len(records) == limit:
                break
    if as_json:
        print_json_list(records)
        return
    if not records and (state or task or name or tag or archived):
        out.print("No sweep keeps these filters.")
        return
    if not records:
        out.print(f"No sweeps yet. Submit one: {ready(server, 'sweep', 'submit', 'examples/quickstart.yaml')}")
        return
    projects = ["project"] if len({record["project"] for record in records}) > 1 else []
    table = Listing(
        "id", *projects, "name", "state", "ended", "best", whole=("id", "state", "ended"), spare=("best", *projects)
    )
    for record in records:
        counts = record["progress"]
        best = next(iter(record["best"].items()), None)
        table.add_row(
            record["id"],
            *(record["project"] for _ in projects),
            Text(record["name"]),
            record["state"],
            f"{progress.ended_count(counts)}/{counts['budget']}",
            f"{units.heading(best[0])} {units.metric(best[0], best[1]['value'])}" if best else "",
        )
    out.print(table)


@app.command()
def show(
    sweep: SweepName,
    document: Annotated[bool, typer.Option("--document", help="Print its sweep document as YAML.")] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a sweep: state, progress, the best so far."""
    with connect(server) as client:
        found = client.sweep(sweep)
        if as_json:
            print_json(found.record)
        elif document:
            show_yaml(found.record["document"])
        else:
            _print_sweep(found.record)
            progress.show_broken_constraints(found, out)


@app.command()
def watch(
    sweep: SweepName,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to watch at most; the sweep goes on.")] = None,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a sweep's progress until it has ended.

    The exit code is 0 if it completed, 7 if no trial of it is feasible, 1 if it failed or was cancelled, 9 after
    --timeout. A sweep of which every trial failed has failed."""
    with connect_patiently(server) as client:
        found = client.sweep(sweep)
        progress.watch(found, out, timeout_seconds=timeout)
        _finish(server, found, quiet=False)


@app.command()
def cancel(sweep: SweepName, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """End a sweep now and stop its running trials."""
    _act(server, sweep, as_json, Sweep.cancel)


@app.command()
def pause(sweep: SweepName, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Start no more trials until the sweep is resumed; running ones finish."""
    _act(server, sweep, as_json, Sweep.pause)


@app.command()
def resume(sweep: SweepName, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Resume a paused sweep."""
    _act(server, sweep, as_json, Sweep.resume)


@app.command()
def clone(sweep: SweepName, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Submit a sweep's document again, with its tags; what was measured before is reused."""
    with connect(server) as client:
        made = client.sweep(sweep).clone()
    if as_json:
        print_json(made.record)
    else:
        out.print(Text(f"Accepted as {made.id} ({made.name})."))


@app.command()
def delete(sweep: SweepName, yes: Yes = False, server: Server = SERVER_DEFAULT) -> None:
    """Delete a sweep that has ended, with its trials and events."""
    with connect(server) as client:
        found = client.sweep(sweep)
        trials = units.plural(progress.ended_count(found.record["progress"]), "trial")
        ask_before_deleting(f"the sweep {found.name} ({found.id}) with its {trials}", yes=yes)
        client.delete_sweep(found.id)
    out.print(Text(f"{found.name} ({found.id}) is deleted."))


app.command()(export)


@app.command()
def extend(
    sweep: SweepName,
    trials: Annotated[int, typer.Option(min=0, help="Trials to add to the budget.")] = 0,
    wall_seconds: Annotated[float, typer.Option(min=0, help="Seconds to add to the budget.")] = 0,
    device_seconds: Annotated[float, typer.Option(min=0, help="Seconds of device time to add to the budget.")] = 0,
    failures: Annotated[int, typer.Option(min=0, help="Failures to add to the budget.")] = 0,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Add to a sweep's budget; one that has used it up continues."""
    if not (trials or wall_seconds or device_seconds or failures):
        raise typer.BadParameter("say what to add: --trials, --wall-seconds, --device-seconds or --failures")
    _act(
        server,
        sweep,
        as_json,
        lambda found: found.extend(
            trials=trials, wall_seconds=wall_seconds, device_seconds=device_seconds, failures=failures
        ),
    )


@app.command()
def prioritize(
    sweep: SweepName,
    priority: Annotated[int, typer.Argument(min=-10, max=10, help="The default is 0.")],
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Execute a sweep's trials before those of sweeps with a lower priority; running trials continue."""
    _act(server, sweep, as_json, lambda found: found.prioritize(priority))


def _print_sweep(record: SweepDetailRecord) -> None:
    ended = record["state"] in ENDED_SWEEP_STATES
    facts: dict[str, str | None] = {
        "sweep": f"{record['name']} ({record['id']})",
        "state": ": ".join(filter(None, (record["state"], progress.reason_of(record)))),
        "end code": record.get("end_code"),
        "project": record["project"] if record["project"] != "default" else None,
        "note": record.get("note") or None,
        "tags": ", ".join(record.get("tags", ())) or None,
        "archived": "yes: lists leave it out" if record.get("archived") else None,
        "task": f"{record['task']} over {record['dataset']}" if record["dataset"] else record["task"],
        "progress": progress.tally(record["progress"]),
        "best": progress.best(record) or None,
        "objectives": ", ".join(f"{goal['goal']} {goal['metric']}" for goal in record["objectives"]),
        "constraints": ", ".join(record["constraints"]) or None,
        "sampler": f"{record['sampler']} ({record['sampler_reason']})",
        "pruner": _pruning(record),
        "spared builds": _spared_builds(record),
        "noise": noise["says"] if (noise := record.get("noise")) else None,
        "parallel": units.at_once(record["budget"]["parallel"], record.get("effective_parallel"), ended=ended),
        "priority": str(record.get("priority") or "") or None,
        "time": _time(record),
        "device time": _device_time(record),
        "target": record["target"] or "the first worker that can serve it",
        "created": record["created_at"],
        "started": record["started_at"],
        "ended": record["ended_at"],
    }
    _print_facts(facts)
    print_space(out, record["space"])


def _print_notes(notes: Iterable[ProblemNote]) -> None:
    for note in notes:
        text = ": ".join(filter(None, (note["pointer"] or "the document", note["detail"], note["remedy"])))
        out.print(Text(f"Note on {text}", style="yellow"))


def _act(server: str, name: str, as_json: bool, action: Callable[[Sweep], Sweep]) -> None:
    with connect(server) as client:
        sweep = action(client.sweep(name))
    if as_json:
        print_json(sweep.record)
    else:
        out.print(Text(f"{sweep.name} ({sweep.id}) is {sweep.state}."))


def _finish(server: str, sweep: Sweep, *, quiet: bool) -> None:
    """Tell how a watched sweep ended, by a line and the exit code."""
    is_without_result = sweep.record.get("end_code") == progress.NONE_FEASIBLE
    if not quiet:
        reason = f" ({found})" if (found := progress.reason_of(sweep.record)) else ""
        if is_without_result:
            reason += ", as no trial is complete and feasible"
        out.print(Text(f"{sweep.name} is {sweep.state}{reason}: {progress.tally(sweep.record['progress'])}."))
        progress.show_broken_constraints(sweep, out)
        hint(f"See its leaderboard: {ready(server, 'leaderboard', sweep.id)}")
    if sweep.state != "completed":
        raise typer.Exit(EXIT_REFUSED)
    if is_without_result:
        raise typer.Exit(EXIT_NONE_FEASIBLE)


def _pruning(record: SweepDetailRecord) -> str | None:
    pruning = record.get("pruning")
    if pruning is None or pruning["pruner"] == "none":
        return None
    saved = f", saved {pruning['saved_share']:.0%} of the steps" if pruning["saved_share"] else ""
    return f"{pruning['pruner']} ({pruning['reason']}): stopped {pruning['pruned']} of {pruning['judged']}{saved}"


def _spared_builds(record: SweepDetailRecord) -> str | None:
    """Of a sweep with a model of its device."""
    spared = record.get("spared_builds")
    if spared is None:
        return None
    return f"{spared['trials']} before a training, by predictions; {spared['broken']} broke a limit after all"


def _time(record: SweepRecord) -> str | None:
    """What a sweep may take by the clock; None where nothing limits it."""
    limit = record["budget"]["wall_seconds"]
    return None if limit is None else f"{units.duration(limit)} at most, from its start"


def _device_time(record: SweepRecord) -> str | None:
    """What a sweep has taken of its devices' time, and may take; None where an older service does not say."""
    taken, limit = record.get("device_seconds"), record["budget"].get("device_seconds")
    if taken is None:
        return None
    return units.duration(taken) + (f" of {units.duration(limit)}" if limit is not None else "")


def _print_facts(facts: dict[str, str | None]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, Text(value))
    out.print(table)
