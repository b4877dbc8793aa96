"""The best trial of each objective: of one sweep, or of a page of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.states import TrialState
from service.database.models import Sweep, Trial, TrialMetric
from service.sweeps.schemas import BestTrial


def best_trials(session: Session, sweep: Sweep) -> dict[str, BestTrial]:
    """For each objective, the feasible complete trial with the best value; an objective without one is left out."""
    return best_of_each(session, [sweep])[sweep.id]


def best_of_each(session: Session, sweeps: Sequence[Sweep]) -> dict[str, dict[str, BestTrial]]:
    """The best trials of each sweep, by its id: two queries, however many sweeps and objectives there are."""
    goals = dict.fromkeys((each["metric"], each["goal"]) for sweep in sweeps for each in sweep.objectives)
    with_results = [sweep.id for sweep in sweeps if sweep.counts.get(TrialState.COMPLETE)]
    best: dict[str, dict[str, BestTrial]] = {sweep.id: {} for sweep in sweeps}
    if not with_results:
        return best
    columns = [_best_id(metric, goal) for metric, goal in goals]
    rows = session.execute(sa.select(Sweep.id, *columns).where(Sweep.id.in_(with_results))).all()
    ids = {row[0]: dict(zip(goals, row[1:], strict=True)) for row in rows}
    found = {trial for of_sweep in ids.values() for trial in of_sweep.values() if trial is not None}
    known = {
        (trial, metric): BestTrial(trial=trial, number=number, value=value)
        for trial, number, metric, value in session.execute(
            sa.select(Trial.id, Trial.number, TrialMetric.name, TrialMetric.value)
            .join(TrialMetric, TrialMetric.trial_id == Trial.id)
            .where(Trial.id.in_(found), TrialMetric.name.in_([metric for metric, _ in goals]))
        )
    }
    for sweep in sweeps:
        for each in sweep.objectives:
            trial = ids.get(sweep.id, {}).get((each["metric"], each["goal"]))
            if trial is not None:
                best[sweep.id][each["metric"]] = known[trial, each["metric"]]
    return best


def _best_id(metric: str, goal: str) -> sa.ScalarSelect[str]:
    """The id of a sweep's best trial by one metric, for a query of sweeps: an index has its values in order."""
    value = TrialMetric.value.desc() if goal == "maximize" else TrialMetric.value.asc()
    return (
        sa.select(Trial.id)
        .join(TrialMetric, TrialMetric.trial_id == Trial.id)
        .where(TrialMetric.sweep_id == Sweep.id, TrialMetric.name == metric)
        .where(Trial.state == TrialState.COMPLETE, Trial.feasible.is_(True))
        .order_by(value, Trial.number)
        .limit(1)
        .correlate(Sweep)
        .scalar_subquery()
    )
