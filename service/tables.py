"""Leaderboards as CSV that a spreadsheet opens safely."""

from __future__ import annotations

import csv
import io
from typing import Any

from sqlalchemy.orm import Session

from service import leaderboards
from service.columns import ColumnStore, metric_names
from service.models import Sweep

FACTS = ("number", "trial", "state", "rank", "on_front", "feasible")
ORIGINS = ("reason", "reused_from", "started_from")


def leaderboard_csv(
    session: Session, store: ColumnStore, sweep: Sweep, sort: str, filters: leaderboards.Filters
) -> str:
    """The whole leaderboard: a column a metric and a column a parameter, by their names; what is absent is empty."""
    metrics = metric_names(session, sweep)
    parameters = leaderboards.parameter_names(sweep)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*FACTS, *metrics, *parameters, *ORIGINS])
    for row in leaderboards.rows(session, store, sweep, sort=sort, filters=filters):
        facts, origins = ([getattr(row, name) for name in names] for names in (FACTS, ORIGINS))
        values = [row.metrics.get(name) for name in metrics] + [row.parameters.get(name) for name in parameters]
        writer.writerow([_cell(value) for value in [*facts, *values, *origins]])
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
