"""Leaderboards as CSV that a spreadsheet opens safely, and as JSON Lines: any number of trials, as a stream."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from layers.expressions.summary_metrics import deciding_metrics
from service.common.noise import is_timed
from service.database.sessions import AsyncRead
from service.results import leaderboards
from service.results import schemas as result_schemas
from service.results.columns import ColumnStore, metric_names

FACTS = ("number", "trial", "state", "rank", "on_front", "feasible")
ORIGINS = ("reason", "reused_from", "started_from")
BATCH = 500


@dataclass(frozen=True, slots=True)
class Export:
    """Which trials are sent, in which order, as what text."""

    trial_ids: Sequence[str]
    head: str
    lines: Callable[[Iterable[result_schemas.LeaderboardRow]], str]


def csv_export(session: Session, store: ColumnStore, sweep_id: str, sort: str, filters: leaderboards.Filters) -> Export:
    """A column a metric and a column a parameter, by their names; what is absent is empty. Beside them how certain the
    latencies are that the sweep uses.

    Raises NotFoundError, UnprocessableError.
    """
    sweep = leaderboards.get_sweep(session, sweep_id)
    metrics = metric_names(session, sweep)
    parameters = leaderboards.parameter_names(sweep)
    deciding = deciding_metrics([each["metric"] for each in sweep.objectives], sweep.document)
    timed = [name for name in deciding if is_timed(name)]

    def lines(rows: Iterable[result_schemas.LeaderboardRow]) -> str:
        return _csv(
            [
                *(getattr(row, name) for name in FACTS),
                *(row.metrics.get(name) for name in metrics),
                *(row.parameters.get(name) for name in parameters),
                *_noise_cells(row, timed),
                *(getattr(row, name) for name in ORIGINS),
            ]
            for row in rows
        )

    bounds = [f"{name}_{bound}" for name in timed for bound in ("low", "high")]
    head = _csv([[*FACTS, *metrics, *parameters, "judged", *bounds, *ORIGINS]])
    return Export(leaderboards.ordered_ids(session, store, sweep, sort, filters), head, lines)


def jsonl_export(
    session: Session, store: ColumnStore, sweep_id: str, sort: str, filters: leaderboards.Filters
) -> Export:
    """A line a trial, each a `LeaderboardRow`. Raises NotFoundError, UnprocessableError."""
    sweep = leaderboards.get_sweep(session, sweep_id)
    return Export(
        leaderboards.ordered_ids(session, store, sweep, sort, filters),
        "",
        lambda rows: "".join(f"{row.model_dump_json()}\n" for row in rows),
    )


async def sent(read: AsyncRead, export: Export) -> AsyncIterator[str]:
    """The text of an export, a batch of trials at a time: no connection is held while a slow reader reads."""
    yield export.head
    for start in range(0, len(export.trial_ids), BATCH):
        some = export.trial_ids[start : start + BATCH]
        yield await read(lambda session, some=some: export.lines(leaderboards.rows_of(session, some)))


def _noise_cells(row: result_schemas.LeaderboardRow, timed: Sequence[str]) -> list[Any]:
    if row.noise is None:
        return [None] * (1 + 2 * len(timed))
    found = (row.noise.figures.get(name) for name in timed)
    return [row.noise.judged, *(bound for each in found for bound in ((each.low, each.high) if each else (None, None)))]


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Numbers as they are; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return "'" + value
    return value
