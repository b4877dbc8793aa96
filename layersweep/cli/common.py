"""What all commands share: options, the client, consoles, and errors as sentences."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from layersweep import files
from layersweep.client import DEFAULT_SERVER, Client
from layersweep.display import units
from layersweep.display.printable import printable
from layersweep.display.terminal import Terminal, show_json
from layersweep.errors import (
    InvalidUsageError,
    LayersweepError,
    NoFeasibleTrialError,
    NotAuthorizedError,
    ResponseError,
    ServiceFailureError,
    UnreachableError,
    WaitTimeoutError,
)
from layersweep.files import STANDARD_INPUT

RETRY_SECONDS = 3.0
"""A person waits for a command: a service that is not there is told soon. Waits bear a restart of their own."""
PATIENT_RETRY_SECONDS = 30.0
"""Of commands that a job runs, which a restart of the service must not fail: it is told after the first failure."""

EXIT_REFUSED = 1
EXIT_WRONG_CALL = 2
EXIT_UNREACHABLE = 3
EXIT_BROKEN = 4
EXIT_UNDECIDED = 5
EXIT_MISMATCH = 6
"""The last three are of `sweep assert`."""
EXIT_NONE_FEASIBLE = 7
EXIT_NOT_AUTHORIZED = 8
EXIT_TIMEOUT = 9
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
"""As of a process that SIGPIPE ended: what a shell with `pipefail` knows."""

SERVER_VARIABLE = "LAYERSWEEP_SERVER"

COMPLETION_SECONDS = 1.0
"""How long Tab may wait for the service."""

_PLAIN_NAME = re.compile(r"[\w.-]+")
"""A name that no shell takes apart or executes: scripts of completion are evaluated, and names are others' texts."""

Server = Annotated[
    str,
    typer.Option("--server", envvar=SERVER_VARIABLE, help="Address of the service (token: LAYERSWEEP_TOKEN)."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]


def from_standard_input(path: Path) -> Path:
    """`-` as the standard input, as other commands have it."""
    return STANDARD_INPUT if str(path) == "-" else path


def from_standard_inputs(paths: list[Path]) -> list[Path]:
    """The same of several."""
    return [from_standard_input(path) for path in paths]


File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        callback=from_standard_input,
        help="The sweep document: YAML, or JSON (*.json); - for the standard input.",
    ),
]


def complete_sweep(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of sweeps that begin so, the newest first, as far as the service says them soon enough."""
    found: list[str] = []
    # A thread that may be left behind: looking up the service's address has no time limit of its own.
    asking = Thread(target=_add_names, args=(found, ctx.params.get("server"), incomplete), daemon=True)
    asking.start()
    asking.join(COMPLETION_SECONDS)
    return list(dict.fromkeys(found))


def _add_names(found: list[str], server: str | None, beginning: str) -> None:
    with contextlib.suppress(LayersweepError):
        files.read_variables(os.environ)
        with Client(server, timeout_seconds=COMPLETION_SECONDS, retry_seconds=0) as client:
            page = client.transport.page("/v1/sweeps", {"name": beginning or None})
        names = (str(record.get("name")) for record in page["items"])
        found += [name for name in names if name.startswith(beginning) and _PLAIN_NAME.fullmatch(name)]


SweepName = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="Id of a sweep, or its name (the newest of that name).", autocompletion=complete_sweep
    ),
]

SERVER_DEFAULT = DEFAULT_SERVER

out = Terminal()
err = Terminal(stderr=True)


_NO_TEXT = "surrogates not allowed"
"""What Python says of an argument with bytes that are no character of the locale's encoding, where it is sent."""


class Commands(TyperGroup):
    """The root of the command line: expected errors end in a sentence and an exit code, without a traceback.

    Lists of commands have the whole first sentence of each.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _say_in_full(self)

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                # Here, where it can be told, and not at the interpreter's exit.
                if sys.stdout is not None:
                    sys.stdout.flush()
        except LayersweepError as error:
            report(error)
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except UnicodeEncodeError as problem:
            if problem.reason != _NO_TEXT:
                raise
            said = f"{problem.object!r} is no text in UTF-8: type it anew, or set a UTF-8 locale (LC_ALL=C.UTF-8)"
            err.print(Text.assemble(("error: ", "bold red"), said), soft_wrap=True)
            raise typer.Exit(EXIT_WRONG_CALL) from problem
        except BrokenPipeError:
            # The reader of our output has gone (`| head`): there is nobody to tell.
            _close_output()
            raise typer.Exit(EXIT_READER_GONE) from None
        except OSError as problem:
            _close_output()
            err.print(Text.assemble(("error: ", "bold red"), _os_error(problem)), soft_wrap=True)
            raise typer.Exit(EXIT_WRONG_CALL) from problem


def _say_in_full(group: TyperGroup) -> None:
    """Let no command's line in a list of commands be cut: by itself one that is too long ends in `...`."""
    for command in group.commands.values():
        if command.help and not command.short_help:
            command.short_help = " ".join(command.help.split("\n\n")[0].split())
        if isinstance(command, TyperGroup):
            _say_in_full(command)


def _close_output() -> None:
    """Write nothing more to the standard output, not even what is still buffered for it at the interpreter's exit."""
    stream, sys.stdout = sys.stdout, None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _os_error(problem: OSError) -> str:
    return f"{problem.filename or 'the output'}: {problem.strerror or problem}"


def report(error: LayersweepError) -> None:
    """Print an error for people: a document's problems as a list of place, what is wrong, and what to try."""
    items = error.unsaid if isinstance(error, ResponseError) else ()
    message = error.detail or error.title if isinstance(error, ResponseError) else str(error)
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    for item in items:
        err.print(Text(f"  {item.pointer or '(the whole document)'}", style="bold"))
        err.print(Text(f"      {item.detail}"), soft_wrap=True)
        if item.remedy:
            err.print(Text.assemble(("      try: ", "green"), item.remedy), soft_wrap=True)
    print_notes(error)


def print_notes(problem: BaseException) -> None:
    """What an error carries beside its message: which service it was, what became of what was begun."""
    for note in getattr(problem, "__notes__", ()):
        err.print(Text(note), soft_wrap=True)


_EXIT_CODES: tuple[tuple[type[LayersweepError], int], ...] = (
    (UnreachableError, EXIT_UNREACHABLE),
    (ServiceFailureError, EXIT_UNREACHABLE),
    (NotAuthorizedError, EXIT_NOT_AUTHORIZED),
    (NoFeasibleTrialError, EXIT_NONE_FEASIBLE),
    (WaitTimeoutError, EXIT_TIMEOUT),
    (InvalidUsageError, EXIT_WRONG_CALL),
)


def exit_code(error: LayersweepError) -> int:
    if isinstance(error, ResponseError) and error.status in {400, 413, 415, 422}:
        return EXIT_WRONG_CALL
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_REFUSED)


def ready(server: str, *words: object) -> str:
    """A command to type as it stands: it acts on the service that this one acted on."""
    usual = os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER
    named = [] if server == usual else ["--server", server]
    return shlex.join(["layersweep", *map(str, words), *named])


def hint(words: str) -> None:
    """What to do next: in one line, so that a command in it can be copied."""
    out.print(Text(words, style="dim"), soft_wrap=True)


def connect(server: str) -> Client:
    return Client(server, retry_seconds=RETRY_SECONDS)


def connect_patiently(server: str) -> Client:
    """A client that bears a restart of the service, and says so while it does."""
    client = Client(server, retry_seconds=PATIENT_RETRY_SECONDS)
    printed: set[str] = set()

    def tell(problem: LayersweepError, left_seconds: float) -> None:
        reason = problem.detail if isinstance(problem, ResponseError) else str(problem).partition(". ")[0]
        reason = reason.rstrip(".")
        if reason not in printed:
            printed.add(reason)
            err.print(Text(f"{reason}. Trying again for {units.duration(left_seconds)}.", style="dim"), soft_wrap=True)

    client.transport.on_retry = tell
    return client


def ask_before_deleting(what: str, *, yes: bool) -> None:
    """Ask whoever types at a terminal; a script is not asked. Raises typer.Abort where the answer is no."""
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        typer.confirm(f"Delete {printable(what)}? This cannot be undone.", abort=True, err=True)


def print_json(value: Any) -> None:
    show_json(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_list(items: Iterable[Any]) -> None:
    """All items as one page of the API's lists: scripts read both the same way."""
    print_json({"items": list(items), "next_page_token": None})


def part_of_product(module: str, extra: str) -> ModuleType:
    """Import a module of the service or the worker, which the client alone does not have."""
    try:
        return import_module(module)
    except ModuleNotFoundError as problem:
        missing = problem.name or module
        if missing.partition(".")[0] == module.partition(".")[0]:
            hint = "this is the client alone; the service and the worker run from a checkout: `make setup` there"
        else:
            hint = f"install it with `pip install -e '.[{extra}]'` in the checkout, or with `make setup`"
        raise InvalidUsageError(f"this command needs {missing!r}, which is not installed: {hint}") from problem
