"""The list of sweeps."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import leaderboards
from service.db import now
from service.errors import Unprocessable
from service.models import SWEEP_STATES, Sweep, Worker
from service.views.common import dataset_names, ended_trials, progress_bar, target_words


def sweeps(
    session: Session, before: str | None, state: str | None = None, name: str | None = None, size: int = 50
) -> dict[str, Any]:
    """The newest sweeps in `state` whose name has `name` in it, each with its best values."""
    if state is not None and state not in SWEEP_STATES:
        raise Unprocessable(f"state={state!r}: choose from {', '.join(SWEEP_STATES)}")
    query = select(Sweep).order_by(Sweep.id.desc()).limit(size + 1)
    if before is not None:
        query = query.where(Sweep.id < before)
    if state is not None:
        query = query.where(Sweep.state == state)
    if name is not None:
        query = query.where(Sweep.name.icontains(name, autoescape=True))
    rows = list(session.scalars(query))
    names = dataset_names(session, {row.dataset_id for row in rows[:size] if row.dataset_id})
    items = [
        {
            "row": row,
            "dataset": names.get(row.dataset_id or ""),
            "target": target_words(row),
            "best": leaderboards.best(session, row),
            "bar": progress_bar(row),
            "ended_trials": ended_trials(row),
        }
        for row in rows[:size]
    ]
    return {
        "now": now(session),
        "items": items,
        "next": rows[size - 1].id if len(rows) > size else None,
        "first": before is None,
        "before": before,
        "filters": {"state": state, "name": name},
        "workers": session.scalar(select(Worker.id).limit(1)) is not None,
        "is_live": any(row.state == "active" for row in rows[:size]),
    }
