"""The leaderboard as a table: a column for each varied parameter if they fit, else a line of them under each row."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from layersweep.display import shared_models, units
from layersweep.leaderboard import shown_metrics
from layersweep.records.sweeps import LeaderboardRow, Objective, Scalar

FRONT = "★"
RECOMMENDED = "»"
INDENT = 8
GAP = 2
"""Spaces between the columns of the narrow table."""


def render(
    rows: Sequence[LeaderboardRow],
    objectives: Iterable[Objective],
    console: Console,
    *,
    summary: Sequence[str] = (),
    columns: Sequence[str] = (),
    recommended: str | None = None,
    sort: str | None = None,
) -> RenderableType:
    """The rows as a table for `console`'s width, with a legend. `recommended` is the id of a trial to mark.

    Its columns are the objectives, the metrics of `summary` and the parameters that vary; or these `columns`, metrics
    and parameters by their names in full. What the rows are sorted by (`sort`, as in the query) has a column. Where the
    terminal is narrow, metrics of the summary that are no objectives are left out as far as needed, the last first."""
    if not rows:
        return Text("No trials yet.")
    wanted = list(columns) or [goal["metric"] for goal in objectives]
    known = {name for row in rows for name in row["parameters"]}
    metrics = [name for name in columns if name not in known] if columns else shown_metrics(rows, wanted, summary)
    parameters = [name for name in columns if name in known] if columns else varied_parameters(rows)
    key = (sort or "").removeprefix("-")
    if key not in metrics and any(key in row["metrics"] for row in rows):
        metrics.append(key)
    if key not in parameters and any(key in row["parameters"] for row in rows):
        parameters.append(key)
    table = _wide(rows, metrics, parameters, recommended)
    if console.measure(table).minimum > console.width or _width(table, console) > console.width:
        for spare in [name for name in reversed(metrics) if name not in {*wanted, key}]:
            if sum(_widths(rows, metrics, recommended)) + GAP * (len(metrics) + 3) > console.width:
                metrics.remove(spare)
        table = _narrow(rows, metrics, parameters, recommended, console.width)
    pairs = shared_models.table(rows)
    return Group(table, *([] if pairs is None else [pairs]), _legend(rows, recommended), *_failures(rows))


def varied_parameters(rows: Sequence[LeaderboardRow]) -> list[str]:
    """The parameters that are not the same in all rows, in the order of the document."""
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    if len(rows) == 1:
        return names
    return [name for name in names if len({str(row["parameters"].get(name)) for row in rows}) > 1]


OF_SECTIONS = frozenset({"kind", "dtype", "bias"})
"""Last parts that several sections have: alone they do not say which is meant."""


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each name's last part, or as many of its last parts as tell it apart from the others and from what other
    sections have ("mlp.kind")."""
    short: dict[str, str] = {}
    for name in names:
        parts = name.split(".")
        candidate = name
        for length in range(1, len(parts) + 1):
            candidate = ".".join(parts[-length:])
            if candidate in OF_SECTIONS and length < len(parts):
                continue
            if sum(other == candidate or other.endswith(f".{candidate}") for other in names) == 1:
                break
        short[name] = candidate
    return short


def marks(row: LeaderboardRow, recommended: str | None) -> str:
    return (RECOMMENDED if row["trial"] == recommended else " ") + (FRONT if row["on_front"] else " ")


def _cells(row: LeaderboardRow, metrics: Sequence[str], recommended: str | None) -> list[str]:
    rank = units.ABSENT if row["rank"] is None else str(row["rank"])
    values = [units.figure(name, row["metrics"]) for name in metrics]
    return [marks(row, recommended), rank, str(row["number"]), *values]


def _state(row: LeaderboardRow) -> str:
    """The state, with what the reader needs to know about it."""
    if row["state"] == "complete" and row["feasible"] is False:
        return "not feasible"
    if (noise := row.get("noise")) and noise["judged"] == "cannot":
        return "not judged"
    return "complete, reused" if row["state"] == "complete" and row["reused_from"] else row["state"]


def _style(row: LeaderboardRow) -> str:
    if row["on_front"]:
        return "bold green"
    return "" if row["state"] == "complete" and row["feasible"] else "dim"


def _wide(
    rows: Sequence[LeaderboardRow], metrics: Sequence[str], parameters: Sequence[str], recommended: str | None
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", "rank", "trial"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for name in metrics:
        table.add_column(units.heading(name), justify="right", no_wrap=True)
    short = short_names(parameters)
    for name in parameters:
        numeric = all(isinstance(row["parameters"].get(name), int | float | None) for row in rows)
        table.add_column(_folded(short[name]), justify="right" if numeric else "left", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in rows:
        values = [units.value(row["parameters"].get(name)) for name in parameters]
        table.add_row(*_cells(row, metrics, recommended), *values, _state(row), style=_style(row))
    return table


def _narrow(
    rows: Sequence[LeaderboardRow],
    metrics: Sequence[str],
    parameters: Sequence[str],
    recommended: str | None,
    width: int,
) -> Group:
    head, *cells = _lines(rows, metrics, recommended)
    widths = _widths(rows, metrics, recommended)

    def line(values: Sequence[str]) -> str:
        aligned = [
            value.ljust(size) if column in {0, len(widths) - 1} else value.rjust(size)
            for column, (value, size) in enumerate(zip(values, widths, strict=True))
        ]
        return (" " * GAP).join(aligned).rstrip()

    short = short_names(parameters)
    lines = [Text(line(head), style="bold"), Text("─" * min(width, sum(widths) + GAP * (len(widths) - 1)), style="dim")]
    for row, values in zip(rows, cells, strict=True):
        lines.append(Text(line(values), style=_style(row)))
        settings = " ".join(_settings(row["parameters"], short))
        wrapped = textwrap.wrap(settings, max(20, width - INDENT), break_on_hyphens=False, break_long_words=False)
        lines += [Text(" " * INDENT + part, style="dim") for part in wrapped]
    return Group(*lines)


def _lines(rows: Sequence[LeaderboardRow], metrics: Sequence[str], recommended: str | None) -> list[list[str]]:
    """The head, and the cells of each row."""
    head = ["", "rank", "trial", *(units.heading(name) for name in metrics), "state"]
    return [head, *([*_cells(row, metrics, recommended), _state(row)] for row in rows)]


def _widths(rows: Sequence[LeaderboardRow], metrics: Sequence[str], recommended: str | None) -> list[int]:
    """The widths of the columns of those lines."""
    return [max(map(len, column)) for column in zip(*_lines(rows, metrics, recommended), strict=True)]


def _settings(parameters: Mapping[str, Scalar | None], short: Mapping[str, str]) -> list[str]:
    return [f"{label}={units.value(parameters[name])}" for name, label in short.items() if name in parameters]


def _folded(name: str) -> str:
    """A heading on several short lines: num_layers becomes "num_" over "layers"."""
    return name.replace("_", "_\n").replace(".", ".\n")


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def _failures(rows: Sequence[LeaderboardRow]) -> list[Text]:
    """Why trials failed, a line for each reason: most often all have the same."""
    numbers: dict[str, list[str]] = {}
    for row in rows:
        if row["state"] == "failed" and row["reason"]:
            numbers.setdefault(row["reason"].splitlines()[0], []).append(str(row["number"]))
    return [
        Text(f"{'Trial' if len(failed) == 1 else 'Trials'} {', '.join(failed)} failed: {reason}", style="yellow")
        for reason, failed in numbers.items()
    ]


def _legend(rows: Sequence[LeaderboardRow], recommended: str | None) -> Text:
    legend = f"{FRONT} on the Pareto front"
    if any(row["trial"] == recommended for row in rows):
        legend += f"   {RECOMMENDED} recommended"
    return Text(legend, style="dim")
