"""Two to ten trials of a sweep beside one another, what differs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from layers.configuration import Sections, flatten
from layers.expressions.metric_names import MetricNames
from layers.metrics import metric as declaration_of
from layers.parameter import Scalar
from service.common import formatting
from service.database.models import Sweep, Trial
from service.database.sessions import now
from service.errors import NotFoundError, UnprocessableError
from service.results import leaderboards
from service.web.views.query import MAX_COMPARED, SweepQuery


@dataclass(frozen=True, slots=True)
class Row:
    """One metric or parameter of all the trials."""

    name: str
    values: list[Scalar | None]
    objective: bool = False
    best: float | None = None
    """The best of the values, where one is better than another."""

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    now: float
    sweep: Sweep
    query: SweepQuery
    trials: list[Trial]
    metrics: list[Row]
    parameters: list[Row]


def compare(session: Session, sweep_id: str, query: SweepQuery) -> Comparison:
    """The chosen trials. Raises NotFoundError, and Unprocessable for fewer than two or more than ten."""
    row = leaderboards.get_sweep(session, sweep_id)
    numbers = [int(number) for number in query.trial]
    if not 2 <= len(numbers) <= MAX_COMPARED:
        raise UnprocessableError(
            f"{formatting.plural(len(numbers), 'trial')} chosen: choose from 2 to {MAX_COMPARED} on the leaderboard"
        )
    found = {
        trial.number: trial
        for trial in session.scalars(select(Trial).where(Trial.sweep_id == row.id, Trial.number.in_(numbers)))
    }
    if missing := [number for number in numbers if number not in found]:
        raise NotFoundError(f"there is no trial {missing[0]} in sweep {row.id}")
    chosen = [found[number] for number in numbers]
    return Comparison(
        now=now(session),
        sweep=row,
        query=query,
        trials=chosen,
        metrics=_metrics(row, chosen),
        parameters=_parameters(chosen),
    )


def _metrics(sweep: Sweep, chosen: Sequence[Trial]) -> list[Row]:
    goals = {each["metric"]: each["goal"] for each in sweep.objectives}
    names = [*goals, *(name for name in MetricNames.of(sweep.document) if name not in goals)]
    rows: list[Row] = []
    for name in names:
        values: list[Scalar | None] = [trial.metrics.get(name) for trial in chosen]
        known = [float(value) for value in values if value is not None]
        if known:
            best = max(known) if goals.get(name, declaration_of(name).goal) == "maximize" else min(known)
            rows.append(Row(name, values, name in goals, best if len(set(known)) > 1 else None))
    return rows


def _parameters(chosen: Sequence[Trial]) -> list[Row]:
    """Of the whole configurations: what the sweep varies comes first."""
    flat = [flatten(cast("Sections", trial.configuration)) for trial in chosen]
    names = dict.fromkeys([name for trial in chosen for name in trial.parameters])
    names |= dict.fromkeys([name for values in flat for name in values])
    return [Row(name, [values.get(name) for values in flat]) for name in names]
