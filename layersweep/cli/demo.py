"""`layersweep demo`: the whole product in one command, on this machine, with data that every Python brings along."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.rule import Rule
from rich.text import Text

from layersweep.cli.children import Children
from layersweep.cli.common import EXIT_NONE_FEASIBLE, EXIT_REFUSED, out, part_of_product, ready
from layersweep.cli.results import configuration_yaml, recommended
from layersweep.client import Client
from layersweep.display import leaderboards, progress, units
from layersweep.display.terminal import show_text
from layersweep.errors import InvalidUsageError, LayersweepError, ResponseError, UnreachableError
from layersweep.records.recommendations import Recommendation
from layersweep.sweep import Sweep

HOST = "127.0.0.1"
USUAL_PORT = 8420
PORTS_TRIED = 50
MOST_ROWS = 6
"""Of the leaderboard at the end: four lines each, which a screen holds."""
READY_SECONDS = 60.0
WORKER_OPTIONS = ("--device", "cpu", "--threads", "1", "--slots", "2")
"""Its models are so small that one thread trains and runs them faster than two. The other core is then free: one trial
is trained while another is exported, and the service leaves a measurement alone."""
ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "examples" / "quickstart.yaml"


def demo(
    document: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="Another sweep document.", show_default="examples/quickstart.yaml")
    ] = DOCUMENT,
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", envvar="LAYERSWEEP_DATA_DIR", help="Folder of the database, data and logs."),
    ] = Path("data/demo"),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the service; the next free one if in use.")] = (
        USUAL_PORT
    ),
    keep: Annotated[
        bool | None,
        typer.Option("--keep/--no-keep", help="Keep serving at the end. Default: only in a terminal."),
    ] = None,
) -> None:
    """Start a service and a CPU worker, run a small sweep, and show its results."""
    if not document.is_file():
        raise InvalidUsageError(f"{document} is not there: the demo runs from a checkout of Layersweep")
    part_of_product("service.app", "service")
    started = time.monotonic()
    folder = data_dir.absolute()
    chosen_port = free_port(port)
    if chosen_port != port:
        out.print(Text(f"Port {port} is in use: this demo takes {chosen_port} instead.", style="yellow"))
    server = f"http://{HOST}:{chosen_port}"
    with Children() as children, Client(server) as client:
        try:
            _start(children, client, folder, chosen_port)
            sweep = _submit(client, document)
            progress.watch(sweep, out, check=children.check)
        except KeyboardInterrupt:
            out.print("Stopped. The same command goes on with this sweep.")
            raise
        except LayersweepError:
            out.print(Text(f"The logs of the service and of the worker lie in {folder / 'logs'}.", style="yellow"))
            raise
        recommendation = recommended(sweep)
        if recommendation is not None:
            _show_recommendation(recommendation, sweep.record["dataset"])
        _explain(server, folder, document, sweep, time.monotonic() - started)
        _show_leaderboard(sweep, recommendation)
        _keep_serving(children, server, keep)
    if sweep.state != "completed":
        raise typer.Exit(EXIT_REFUSED)
    if recommendation is None:
        raise typer.Exit(EXIT_NONE_FEASIBLE)


def free_port(first: int) -> int:
    """The first port from `first` on that can be listened on."""
    for port in range(first, min(first + PORTS_TRIED, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise InvalidUsageError(f"no port from {first} to {first + PORTS_TRIED - 1} is free: choose one with --port")


def _start(children: Children, client: Client, folder: Path, port: int) -> None:
    """Start the service and the worker, and wait until the service is ready."""
    # The demo's own database, whatever the environment says about another one.
    environment = {name: value for name, value in os.environ.items() if name != "LAYERSWEEP_DATABASE_URL"}
    environment |= {"LAYERSWEEP_DATA_DIR": str(folder), "LAYERSWEEP_HOST": HOST, "PYTHONUNBUFFERED": "1"}
    # Threads that wait for each other by spinning make training several times slower where the cores are shared.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logs = folder / "logs"
    children.start("service", ["serve", "--port", str(port)], environment, logs / "service.log")
    worker = ["worker", "--server", client.server, "--name", "demo", *WORKER_OPTIONS]
    children.start("worker", worker, environment, logs / "worker.log")
    out.print(Text(f"Starting a service at {client.server} and a worker on the CPU ..."))
    deadline = time.monotonic() + READY_SECONDS
    while True:
        children.check()
        try:
            client.transport.request("GET", "/readyz", retry_seconds=0, timeout_seconds=5)
            return
        except (UnreachableError, ResponseError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _submit(client: Client, document: Path) -> Sweep:
    """Submit the document, or take up an earlier run of it that was interrupted."""
    preview = client.validate(document)
    for sweep in client.sweeps():
        if sweep.state == "active" and sweep.name == preview["document"]["name"]:
            earlier = client.sweep(sweep.id)
            if earlier.record["document"] == preview["document"]:
                out.print(Text(f"An earlier run was interrupted: going on with sweep {earlier.id}."))
                return earlier
    sweep = client.submit(document)
    record = sweep.record
    out.print(Text(f"Submitted {shown(document)} as sweep {sweep.id}."))
    out.print(
        Text(
            f"{units.plural(record['budget']['trials'], 'trial')} over "
            f"{units.plural(len(record['space']['open_parameters']), 'open parameter')}, "
            f"chosen by the sampler {record['sampler']} ({record['sampler_reason']})."
        )
    )
    return sweep


def _show_recommendation(recommendation: Recommendation, dataset: str | None) -> None:
    row = recommendation["trial"]
    out.print(Rule("Recommended configuration", style="dim"))
    reason = f"Trial {row['number']} of sweep {recommendation['sweep']}. {recommendation['rule']}"
    show_text(textwrap.fill(reason, width=78, initial_indent="# ", subsequent_indent="# ") + "\n")
    show_text(configuration_yaml(recommendation["configuration"], dataset))
    for line in (recommendation["baseline"] or {"says": []})["says"]:
        out.print(Text(line, style="yellow"))


def _explain(server: str, folder: Path, document: Path, sweep: Sweep, elapsed_seconds: float) -> None:
    counts = sweep.record["progress"]
    out.print(Rule(style="dim"))
    out.print(Text(f"{sweep.name} is {sweep.state}: {progress.tally(counts)}."))
    out.print(Text(f"It took {units.duration(elapsed_seconds)} in all."))
    if counts["reused"]:
        out.print(
            Text(
                f"Taken from earlier measurements in {shown(folder)}: {units.plural(counts['reused'], 'trial')} of the "
                "same configuration, data and device. `search: {reuse: false}` in the document measures anew."
            )
        )
    command = own_command()

    def here(*words: str) -> str:
        """On this service, whatever else the environment or the usual port names."""
        return ready(server, *words).replace("layersweep", command, 1)

    facts = {
        "page": f"{server}/sweeps/{sweep.id}",
        "every trial": here("leaderboard", sweep.id),
        "API docs": f"{server}/docs",
        "data and logs": str(folder),
        "look again": f"{command} serve --data-dir {shown(folder)}",
        "your own sweep": f"{here('sweep', 'submit')} FILE    (start from {shown(document)})",
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(Text.assemble((f"{name:<{width}}  ", "bold"), value), soft_wrap=True)


def _show_leaderboard(sweep: Sweep, recommendation: Recommendation | None) -> None:
    """What a screen holds of the front, the recommended trial in it; where none is, of the leaderboard."""
    board = sweep.leaderboard(on_front=True if recommendation else None, limit=MOST_ROWS)
    rows = list(board)
    if recommendation and all(row["trial"] != recommendation["trial"]["trial"] for row in rows):
        rows[-1:] = [recommendation["trial"]]
    out.print(Rule(f"{'The front' if recommendation else 'Leaderboard'} of {sweep.name}", style="dim"))
    chosen = recommendation["trial"]["trial"] if recommendation else None
    out.print(leaderboards.render(rows, board.objectives, out, summary=board.summary_metrics, recommended=chosen))
    if recommendation is None:
        out.print(Text("No trial is complete and feasible: there is nothing to recommend.", style="yellow"))
        progress.show_broken_constraints(sweep, out)


def own_command() -> str:
    """How this program is called here, so that the lines below can be typed as they stand."""
    program = Path(sys.argv[0]).absolute()
    if program.name != "layersweep":
        return f"{shown(Path(sys.executable))} -m layersweep"
    return "layersweep" if shutil.which("layersweep") == str(program) else shown(program)


def shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _keep_serving(children: Children, server: str, keep: bool | None) -> None:
    """In a terminal, leave the service up until the user has seen enough."""
    in_terminal = sys.stdin.isatty() and out.is_terminal and not os.environ.get("CI")
    if not (in_terminal if keep is None else keep):
        return
    out.print(Text(f"\nThe page is up at {server}/ until you press Enter or Ctrl-C.", style="bold"))
    try:
        if sys.stdin.isatty():
            input()
        else:
            while True:
                children.check()
                time.sleep(1)
    except (KeyboardInterrupt, EOFError):
        out.print("")
