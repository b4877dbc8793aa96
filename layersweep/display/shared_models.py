"""Trials that differ only in how many devices share the model, side by side: whether more devices pay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from layersweep.display import units
from layersweep.records.sweeps import LeaderboardRow

SIZE = "tp_size"
LATENCY, MEMORY, COST = "latency_ms_p50", "memory_bytes", "device_ms_per_token"


@dataclass(frozen=True, slots=True)
class SharedPair:
    """A trial of few devices, and the same model shared by more."""

    few: LeaderboardRow
    more: LeaderboardRow


def pairs(rows: Sequence[LeaderboardRow]) -> Iterator[SharedPair]:
    """Every measured trial that more devices share, beside the one of the fewest devices that is like it otherwise."""
    fewest: dict[tuple[tuple[str, str], ...], LeaderboardRow] = {}
    measured = [row for row in rows if SIZE in row["parameters"] and _latencies(row)]
    for row in sorted(measured, key=_size):
        others = tuple(
            sorted((name, str(value)) for name, value in row["parameters"].items() if not name.endswith(SIZE))
        )
        few = fewest.setdefault(others, row)
        if _size(few) < _size(row):
            yield SharedPair(few, row)


def table(rows: Sequence[LeaderboardRow]) -> Table | None:
    """A row for each pair, at each shape; None if there is no pair."""
    found = list(pairs(rows))
    if not found:
        return None
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title="One device and several")
    for heading in ("trials", "devices", "latency p50", "times as fast", "memory of each", "device time a token"):
        drawn.add_column(heading, justify="right", overflow="fold")
    for pair in found:
        for name in _latencies(pair.few):
            if name in pair.more["metrics"]:
                drawn.add_row(*_cells(pair, name))
    return drawn


def _cells(pair: SharedPair, latency: str) -> list[str]:
    shape = latency.removeprefix(LATENCY)
    few, more = pair.few["metrics"], pair.more["metrics"]

    def both(name: str) -> str:
        return f"{units.metric(name, few.get(name))} → {units.metric(name, more.get(name))}"

    return [
        f"{pair.few['number']} → {pair.more['number']}{f' {shape}' if shape else ''}",
        f"{_size(pair.few)} → {_size(pair.more)}",
        both(latency),
        f"{few[latency] / more[latency]:.2f}" if more[latency] else units.ABSENT,
        both(f"{MEMORY}{shape}"),
        both(f"{COST}{shape}"),
    ]


def _latencies(row: LeaderboardRow) -> list[str]:
    return [name for name in row["metrics"] if units.without_shape(name) == LATENCY]


def _size(row: LeaderboardRow) -> int:
    size = row["parameters"].get(SIZE)
    return size if isinstance(size, int) else 1
