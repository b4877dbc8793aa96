"""The list of sweeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.common.states import SweepState
from service.database.models import IS_SEARCH, Sweep, Worker
from service.database.sessions import now
from service.errors import UnprocessableError
from service.events.end_codes import end_code
from service.results import leaderboards
from service.web.views.common import dataset_names, ended_trials, progress_bar, target_words

PAGE_SWEEPS = 50


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sweeps the list shows; None leaves a filter out."""

    project: str | None = None
    before: str | None = None
    """Older than this one."""
    state: str | None = None
    name: str | None = None
    """Part of the name, in upper or lower case."""

    def url(self) -> str:
        """The address of this list."""
        given = {"state": self.state, "name": self.name, "before": self.before}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/?{query}" if query else "/"


def sweeps(session: Session, wanted: Wanted, size: int = PAGE_SWEEPS) -> dict[str, Any]:
    """The newest sweeps that are wanted, each with its best values. Raises UnprocessableError for a state that is
    none."""
    if wanted.state is not None and wanted.state not in set(SweepState):
        raise UnprocessableError(f"state={wanted.state!r}: choose from {', '.join(SweepState)}")
    query = select(Sweep).where(IS_SEARCH).order_by(Sweep.id.desc()).limit(size + 1)
    if wanted.project is not None:
        query = query.where(Sweep.project == wanted.project)
    if wanted.before is not None:
        query = query.where(Sweep.id < wanted.before)
    if wanted.state is not None:
        query = query.where(Sweep.state == wanted.state)
    if wanted.name is not None:
        query = query.where(Sweep.name.icontains(wanted.name, autoescape=True))
    rows = list(session.scalars(query))
    names = dataset_names(session, {row.dataset_id for row in rows[:size] if row.dataset_id})
    items = [
        {
            "row": row,
            "dataset": names.get(row.dataset_id or ""),
            "target": target_words(row),
            "best": (best := leaderboards.best(session, row)),
            "end_code": end_code(row, feasible=bool(best)),
            "bar": progress_bar(row),
            "ended_trials": ended_trials(row),
        }
        for row in rows[:size]
    ]
    return {
        "now": now(session),
        "items": items,
        "here": wanted.url(),
        "next": replace(wanted, before=rows[size - 1].id).url() if len(rows) > size else None,
        "first": wanted.before is None,
        "filters": {"state": wanted.state, "name": wanted.name},
        "states": tuple(SweepState),
        "workers": session.scalar(select(Worker.id).limit(1)) is not None,
        "is_live": any(row.state == SweepState.ACTIVE for row in rows[:size]),
    }
