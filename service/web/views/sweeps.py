"""The list of sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.common.states import SweepState
from service.database.models import IS_SEARCH, Sweep, Worker
from service.database.sessions import now
from service.datasets.datasets import names_of
from service.errors import UnprocessableError
from service.events.end_codes import end_code
from service.events.schemas import EndCode
from service.results.charts import Segment
from service.sweeps.annotation import has_tag
from service.sweeps.best_trials import best_of_each
from service.sweeps.schemas import BestTrial
from service.web.views.common import ended_trials, progress_bar, target_words

PAGE_SWEEPS = 50


@dataclass(frozen=True, slots=True)
class SweepListFilter:
    """Which sweeps the list shows; None leaves a filter out."""

    project: str | None = None
    before: str | None = None
    """Older than this one."""
    state: str | None = None
    name: str | None = None
    """Part of the name, in upper or lower case."""
    tag: str | None = None
    archived: bool = False
    """Those that are archived, in place of the others."""

    def url(self) -> str:
        """The address of this list."""
        given = {"state": self.state, "name": self.name, "tag": self.tag, "before": self.before}
        if self.archived:
            given["archived"] = "true"
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/?{query}" if query else "/"


@dataclass(frozen=True, slots=True)
class ListedSweep:
    row: Sweep
    dataset: str | None
    """Its name."""
    target: str | None
    best: Mapping[str, BestTrial]
    end_code: EndCode | None
    bar: list[Segment]
    ended_trials: int


@dataclass(frozen=True, slots=True)
class SweepList:
    now: float
    items: list[ListedSweep]
    here: str
    """The address of this list."""
    next: str | None
    """The address of the older ones."""
    first: bool
    """Whether there are no newer ones."""
    filters: SweepListFilter
    states: Sequence[str]
    workers: bool
    """Whether one has ever registered."""
    is_live: bool


def sweeps(session: Session, wanted: SweepListFilter, size: int = PAGE_SWEEPS) -> SweepList:
    """The newest sweeps that are wanted, each with its best values. Raises UnprocessableError for a state that is
    none."""
    if wanted.state is not None and wanted.state not in set(SweepState):
        raise UnprocessableError(f"state={wanted.state!r}: choose from {', '.join(SweepState)}")
    query = select(Sweep).where(IS_SEARCH, Sweep.archived == wanted.archived).order_by(Sweep.id.desc()).limit(size + 1)
    if wanted.project is not None:
        query = query.where(Sweep.project == wanted.project)
    if wanted.before is not None:
        query = query.where(Sweep.id < wanted.before)
    if wanted.state is not None:
        query = query.where(Sweep.state == wanted.state)
    if wanted.tag is not None:
        query = query.where(has_tag(wanted.tag))
    if wanted.name is not None:
        query = query.where(Sweep.name.icontains(wanted.name, autoescape=True))
    rows = list(session.scalars(query))
    names = names_of(session, {row.dataset_id for row in rows[:size] if row.dataset_id})
    best = best_of_each(session, rows[:size])
    items = [
        ListedSweep(
            row=row,
            dataset=names.get(row.dataset_id or ""),
            target=target_words(row),
            best=best[row.id],
            end_code=end_code(row, feasible=bool(best[row.id])),
            bar=progress_bar(row),
            ended_trials=ended_trials(row),
        )
        for row in rows[:size]
    ]
    return SweepList(
        now=now(session),
        items=items,
        here=wanted.url(),
        next=replace(wanted, before=rows[size - 1].id).url() if len(rows) > size else None,
        first=wanted.before is None,
        filters=wanted,
        states=tuple(SweepState),
        workers=session.scalar(select(Worker.id).limit(1)) is not None,
        is_live=any(row.state == SweepState.ACTIVE for row in rows[:size]),
    )
