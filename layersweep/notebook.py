"""How sweeps and leaderboards look in a notebook: tables in HTML, every text of them escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

from layersweep.records.sweeps import LeaderboardRow, Scalar, SweepDetailRecord

SHOWN_ROWS = 50
FRONT = "★"


def of_sweep(record: SweepDetailRecord) -> str:
    """A sweep's name, state and progress, and the best value of each objective so far."""
    progress = record["progress"]
    facts = [
        ("sweep", f"{record['name']} ({record['id']})"),
        ("state", record["state"] + (f": {record['reason']}" if record["reason"] else "")),
        ("complete", f"{progress['complete']} of {progress['budget']} trials"),
        ("target", record["target"] or "the first worker that can serve it"),
    ]
    for name, best in record["best"].items():
        facts.append((f"best {name}", f"{_number(best['value'])} (trial {best['number']})"))
    return _table([], facts, first_is_head=True)


def of_leaderboard(rows: Sequence[LeaderboardRow], metrics: Sequence[str], total: int) -> str:
    """The first rows, by these metrics and their parameters."""
    shown = list(islice(rows, SHOWN_ROWS))
    parameters = sorted({name for row in shown for name in row["parameters"]})
    body = [
        [
            FRONT if row["on_front"] else "",
            str(row["number"]),
            *(_number(row["metrics"].get(name)) for name in metrics),
            *(_number(row["parameters"].get(name)) for name in parameters),
            row["state"],
        ]
        for row in shown
    ]
    table = _table(["", "trial", *metrics, *parameters, "state"], body)
    return table if len(shown) == total else f"{table}<p>{len(shown)} of {total} trials</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, first_is_head: bool = False) -> str:
    top = f"<thead><tr>{_cells(head, 'th')}</tr></thead>" if head else ""
    heads = 1 if first_is_head else 0
    lines = (f"<tr>{_cells(row[:heads], 'th')}{_cells(row[heads:])}</tr>" for row in rows)
    return f"<table>{top}<tbody>{''.join(lines)}</tbody></table>"


def _cells(texts: Iterable[str], tag: str = "td") -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _number(value: Scalar | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
