"""`layersweep sweep assert`: a gate for CI."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from layersweep import files
from layersweep.cli.children import leaving_on_signals
from layersweep.cli.common import (
    EXIT_BROKEN,
    EXIT_MISMATCH,
    EXIT_UNDECIDED,
    SERVER_DEFAULT,
    AsJson,
    Server,
    connect_patiently,
    err,
    out,
    print_json,
    print_notes,
    report,
)
from layersweep.client import Client
from layersweep.display import judgements, junit
from layersweep.display.gate_lines import GateLines
from layersweep.errors import InvalidUsageError, LayersweepError, ResponseError
from layersweep.gates import (
    BASELINE,
    MOST_BUILDS,
    USUAL_MOST_BUILDS,
    Following,
    Gate,
    Trial,
    read_baseline,
    write_baseline,
)
from layersweep.names import split_trial
from layersweep.records.assertions import Judgement
from layersweep.sweep import Sweep

STYLES = {"kept": "green", "broken": "bold red", "undecided": "yellow"}


def assert_(
    sweep: Annotated[
        str,
        typer.Argument(metavar="SWEEP", help="Id or name of a sweep: its recommended trial; or SWEEP/NUMBER."),
    ],
    metric: Annotated[
        list[str],
        typer.Option(
            "--metric",
            metavar="LIMIT",
            help="A comparison, as 'latency_ms_p50 <= 1.02 * baseline' or 'memory_bytes <= 2e8'; again: all must hold.",
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `baseline` in a limit is: a file that --write-baseline wrote."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="TRIAL", help="In its place: a sweep or SWEEP/NUMBER that is measured in turns with this one."
        ),
    ] = None,
    write_to: Annotated[
        Path | None,
        typer.Option("--write-baseline", metavar="FILE", help="Keep what is measured, unless a limit is broken."),
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")] = None,
    builds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_BUILDS,
            help="Builds to begin with, each in a fresh process. Left out: as few as can call a limit broken at once: "
            "8 for a number, 5 for a baseline.",
            show_default=False,
        ),
    ] = None,
    most_builds: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_BUILDS,
            help="Add builds up to so many while a limit cannot be judged. A limit that is a number needs 6 at least, "
            "--against 4.",
        ),
    ] = USUAL_MOST_BUILDS,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a limit cannot be judged, too.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=1, help="Seconds until the gate gives up and cancels its builds. Left out: it waits for ever."
        ),
    ] = None,
    archive: Annotated[
        bool, typer.Option("--archive", help="Have lists leave out the sweeps that measured, unless a limit is broken.")
    ] = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Measure a trial anew, in several builds, and fail where it breaks a limit.

    The exit code is 4 where a limit is broken, 6 for a baseline of something else, 9 after --timeout; with --strict 5
    where a limit cannot be judged."""
    if baseline is not None and against is not None:
        raise InvalidUsageError("--baseline and --against are two answers to one question: give one")
    _refuse_without_baseline(metric, baseline, against, write_to)
    started = time.monotonic()
    gate = Gate(metric, builds, most_builds)
    with leaving_on_signals(), _told(junit_file, sweep, metric), connect_patiently(server) as client:
        lines = GateLines(err, gate.most_builds)
        judgement = _judge(client, gate, sweep, baseline, against, timeout, lines)
        if archive and judgement["verdict"] != "broken":
            _archive(lines.measuring.values())
    if junit_file is not None:
        seconds = time.monotonic() - started
        _write(junit_file, junit.of_judgement(sweep, judgement, seconds=seconds, strict=strict))
    if as_json:
        print_json(judgement)
    else:
        _print(judgement)
    if judgement["verdict"] == "undecided" and not strict:
        err.print(Text(f"warning: passed although {judgements.why_undecided(judgement)}", style="yellow"))
    if write_to is not None and judgement["verdict"] != "broken":
        write_baseline(write_to, judgement["measured"])
        err.print(Text(f"Wrote {write_to}."))
        for moved in judgements.moved(judgement) if baseline is None else ():
            err.print(Text(f"warning: {moved}", style="bold yellow"))
    if judgement["verdict"] == "broken":
        raise typer.Exit(EXIT_BROKEN)
    if judgement["verdict"] == "undecided" and strict:
        raise typer.Exit(EXIT_UNDECIDED)


def _archive(sweeps: Iterable[Sweep]) -> None:
    """Have lists leave them out. A sweep that stays in them is no reason to lose a judgement."""
    for sweep in sweeps:
        try:
            sweep.annotate(archived=True)
        except LayersweepError as problem:
            err.print(Text(f"warning: {sweep.name} ({sweep.id}) is not archived: {problem}", style="yellow"))


def _refuse_without_baseline(
    limits: list[str], baseline: Path | None, against: str | None, write_to: Path | None
) -> None:
    if any(BASELINE in limit for limit in limits) and baseline is None and against is None and write_to is None:
        raise InvalidUsageError(
            "a limit names baseline: give --baseline FILE or --against TRIAL, or write the first one with "
            "--write-baseline FILE"
        )


def _judge(
    client: Client,
    gate: Gate,
    sweep: str,
    baseline: Path | None,
    against: str | None,
    timeout: float | None,
    lines: GateLines,
) -> Judgement:
    kept = None if baseline is None else read_baseline(baseline)
    trial = _trial(client, sweep)
    following: Following = {
        "timeout_seconds": timeout,
        "on_progress": lines.progress,
        "on_judgement": lines.judged,
    }
    if against is None:
        return gate.judge(trial.sweep, trial.number, baseline=kept, **following)
    return gate.judge_against(trial, _trial(client, against), **following)


def _trial(client: Client, name: str) -> Trial:
    sweep, number = split_trial(name)
    return Trial(client.sweep(sweep), number)


@contextmanager
def _told(junit_file: Path | None, name: str, limits: list[str]) -> Generator[None]:
    """Tell a CI system of a gate that came to no judgement, too; a baseline of something else has its own exit code."""
    try:
        yield
    except LayersweepError as error:
        if junit_file is not None:
            _write(junit_file, junit.of_error(name, limits, error))
        if isinstance(error, ResponseError) and error.type == "baseline-mismatch":
            report(error)
            raise typer.Exit(EXIT_MISMATCH) from error
        raise
    except (KeyboardInterrupt, SystemExit) as stopped:
        print_notes(stopped)
        raise


def _write(path: Path, content: bytes) -> None:
    with files.written(path) as stream:
        stream.write(content)


def _print(judgement: Judgement) -> None:
    for limit in judgement["limits"]:
        text = judgements.says(limit, judgement["measured"])
        out.print(Text.assemble((limit["verdict"], STYLES[limit["verdict"]]), f"  {limit['limit']}"))
        out.print(Text(f"    {text}", style="dim"))
    out.print(Text(f"Measured on {judgement['measured']['target']}, as the sweep {judgement['id']}."))
