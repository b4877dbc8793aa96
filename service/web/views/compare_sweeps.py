"""Sweeps beside one another: two devices, two datasets, two spaces; what each found, and the same points in both."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from layers.metrics import Goal
from layers.parameter import Scalar
from service.common.states import TrialState
from service.database.models import IS_SEARCH, Sweep, Trial
from service.datasets.datasets import names_of
from service.errors import NotFoundError, UnprocessableError
from service.recommendation.choice import goals_of
from service.recommendation.recommend import recommend
from service.results import charts, leaderboards
from service.results.schemas import LeaderboardRow
from service.sweeps.best_trials import best_of_each
from service.sweeps.schemas import BestTrial
from service.web.views.common import ended_trials, target_words
from service.web.views.compare import Row, parameter_rows

MOST_SWEEPS = 6
OFFERED = 50
"""Other sweeps to choose from, the newest first."""
MOST_PAIRS = 2000
FRONT_POINTS = 500
LEARNT = ("validation_loss", "reference_loss", "training_loss", "accuracy", "bits_per_byte")
"""Metrics that say something of one dataset only."""


@dataclass(frozen=True, slots=True)
class ComparedSweep:
    row: Sweep
    label: str
    """Its name, with the end of its id if others have the same name."""
    recommended: LeaderboardRow | None


@dataclass(frozen=True, slots=True)
class SameTrials:
    """What both sweeps have measured of the same configurations."""

    names: tuple[str, str]
    count: int
    ratios: list[tuple[str, float]]
    """Objective -> median of the other's value over the first one's."""


@dataclass(frozen=True, slots=True)
class SweepComparison:
    sweeps: list[ComparedSweep]
    offered: Sequence[tuple[str, str, float]]
    """Id, name and creation of those that can be added."""
    facts: list[Row]
    """What the sweeps are, if they differ."""
    best: list[Row]
    """The best value of each objective."""
    recommended: list[Row]
    """What summaries show of the recommended trials."""
    parameters: list[Row]
    """Their parameters, if they differ."""
    incomparable: list[str]
    """Objectives that two datasets cannot share."""
    fronts: charts.Curve | None
    same: list[SameTrials]


def compare_sweeps(
    session: Session, sweep_ids: Sequence[str], *, bound_to: str | None, lists: str | None
) -> SweepComparison:
    """The chosen sweeps, and others to add. Raises NotFoundError for one that the caller may not see, and
    UnprocessableError for more than MOST_SWEEPS."""
    ids = list(dict.fromkeys(sweep_ids))
    if len(ids) > MOST_SWEEPS:
        raise UnprocessableError(f"{len(ids)} sweeps chosen: at most {MOST_SWEEPS} stand side by side")
    rows = [leaderboards.get_sweep(session, each) for each in ids]
    for row in rows:
        if bound_to is not None and row.project != bound_to:
            raise NotFoundError(f"there is no sweep {row.id!r}")
    labels = _labels(rows)
    compared = [ComparedSweep(row, labels[row.id], _recommended(session, row)) for row in rows]
    goals: dict[str, Goal] = {name: goal for row in reversed(rows) for name, goal in goals_of(row).items()}
    objectives = list(dict.fromkeys(name for row in rows for name in goals_of(row)))
    datasets = {row.dataset_id for row in rows}
    incomparable = [name for name in objectives if len(datasets) > 1 and name.partition("@")[0] in LEARNT]
    best = best_of_each(session, rows)
    chosen = [each.recommended.metrics if each.recommended else {} for each in compared]
    trials = [session.get(Trial, each.recommended.trial) if each.recommended else None for each in compared]
    return SweepComparison(
        sweeps=compared,
        offered=_offered(session, ids, lists),
        facts=[each for each in _facts(session, rows) if each.differs],
        best=[_row(name, _best_values(best, rows, name), goals, incomparable) for name in objectives],
        recommended=[
            _row(name, [each.get(name) for each in chosen], goals, incomparable)
            for name in _summary(rows, objectives)
            if name in goals or any(name in each for each in chosen)
        ],
        parameters=_parameters(trials),
        incomparable=incomparable,
        fronts=_fronts(session, rows, labels),
        same=[_same(session, rows[0], other, labels) for other in rows[1:]],
    )


def _labels(rows: Sequence[Sweep]) -> dict[str, str]:
    names = Counter(row.name for row in rows)
    return {row.id: row.name if names[row.name] == 1 else f"{row.name} · {row.id[-6:]}" for row in rows}


def _summary(rows: Sequence[Sweep], objectives: Sequence[str]) -> list[str]:
    """What summaries of any of the sweeps show, all objectives first."""
    return list(dict.fromkeys([*objectives, *(name for row in rows for name in leaderboards.summary_of(row))]))


def _best_values(best: Mapping[str, Mapping[str, BestTrial]], rows: Sequence[Sweep], name: str) -> list[float | None]:
    return [found.value if (found := best[row.id].get(name)) else None for row in rows]


def _recommended(session: Session, sweep: Sweep) -> LeaderboardRow | None:
    try:
        return recommend(session, sweep).trial
    except NotFoundError:
        return None


def _offered(session: Session, ids: Sequence[str], project: str | None) -> list[tuple[str, str, float]]:
    query = (
        sa.select(Sweep.id, Sweep.name, Sweep.created_at)
        .where(IS_SEARCH, Sweep.id.not_in(ids))
        .order_by(Sweep.id.desc())
    )
    if project is not None:
        query = query.where(Sweep.project == project)
    return [(row[0], row[1], row[2]) for row in session.execute(query.limit(OFFERED))]


def _facts(session: Session, rows: Sequence[Sweep]) -> list[Row]:
    names = names_of(session, {row.dataset_id for row in rows if row.dataset_id})
    facts: dict[str, list[Scalar | None]] = {
        "device": [target_words(row) for row in rows],
        "dataset": [names.get(row.dataset_id or "") for row in rows],
        "task": [str(row.task) for row in rows],
        "state": [str(row.state) for row in rows],
        "trials": [ended_trials(row) for row in rows],
        "sampler": [row.sampler for row in rows],
        "constraints": [", ".join(row.document.get("constraints", [])) or None for row in rows],
    }
    return [Row(name, values) for name, values in facts.items()]


def _row(name: str, values: Sequence[float | None], goals: Mapping[str, Goal], incomparable: Sequence[str]) -> Row:
    known = [value for value in values if value is not None]
    if len(set(known)) < 2 or name in incomparable or name not in goals:
        return Row(name, list(values))
    return Row(name, list(values), max(known) if goals[name] == "maximize" else min(known))


def _parameters(chosen: Sequence[Trial | None]) -> list[Row]:
    """What a sweep varies or all of them have, if it differs; not all that a model of another kind lacks."""
    varied = {name for trial in chosen if trial for name in trial.parameters}
    rows = [each for each in parameter_rows(chosen) if each.differs]
    return [each for each in rows if each.name in varied or None not in each.values]


def _fronts(session: Session, rows: Sequence[Sweep], labels: Mapping[str, str]) -> charts.Curve | None:
    """The fronts by the first and the last objective that all sweeps have."""
    common = [name for name in goals_of(rows[0]) if all(name in goals_of(row) for row in rows)] if rows else []
    if len(common) < 2:
        return None
    x, y = common[0], common[-1]
    series: list[charts.Series] = []
    for row in rows:
        ranked = sa.select(Trial.metrics).where(Trial.sweep_id == row.id, Trial.pareto_rank == 1)
        found = session.scalars(ranked.order_by(Trial.number).limit(FRONT_POINTS))
        points = sorted((float(each[x]), float(each[y])) for each in found if x in each and y in each)
        series.append(charts.Series(labels[row.id], _edge(points, goals_of(row)[y]), stepped=True))
    return charts.overlaid(series, x, y)


def _edge(points: Sequence[tuple[float, float]], goal: Goal) -> list[tuple[float, float]]:
    """Of points in the order of the first axis those that better the second one of all before them."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if not kept or (point[1] < kept[-1][1] if goal == "minimize" else point[1] > kept[-1][1]):
            kept.append(point)
    return kept


def _same(session: Session, one: Sweep, other: Sweep, labels: Mapping[str, str]) -> SameTrials:
    """The configurations that both have completed, and how their objectives compare."""
    first, second = aliased(Trial), aliased(Trial)
    pairs = session.execute(
        sa.select(first.metrics, second.metrics)
        .join(second, sa.and_(second.point_hash == first.point_hash, second.sweep_id == other.id))
        .where(first.sweep_id == one.id, first.state == TrialState.COMPLETE, second.state == TrialState.COMPLETE)
        .order_by(first.number)
        .limit(MOST_PAIRS)
    ).all()
    ratios: list[tuple[str, float]] = []
    for name in (name for name in goals_of(one) if name in goals_of(other)):
        found = [
            float(theirs[name]) / float(ours[name])
            for ours, theirs in cast("list[tuple[dict[str, float], dict[str, float]]]", pairs)
            if ours.get(name) and name in theirs
        ]
        if found:
            ratios.append((name, statistics.median(found)))
    return SameTrials((labels[one.id], labels[other.id]), len(pairs), ratios)
