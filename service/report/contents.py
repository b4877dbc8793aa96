"""The whole story of a sweep, gathered in one read."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from layers.expressions.metric_names import MetricNames
from layers.expressions.summary_metrics import cost_metric
from layers.metrics import AT
from layersweep import __version__
from layersweep.json_values import JsonObject
from service.common.states import TrialState
from service.confirmation import results
from service.confirmation.schemas import RecommendationDetail
from service.database.counts import REPLICATE, replicates_of
from service.database.models import Attempt, Dataset, Measurement, Sweep, Trial, TrialMetric, Worker
from service.database.sessions import now
from service.datasets.implications import implications
from service.errors import NotFoundError
from service.recommendation import further_trainings
from service.recommendation.evidence import detailed
from service.recommendation.preferences import SelectionPreferences
from service.report.schemas import (
    Report,
    ReportedDataset,
    ReportedPoint,
    ReportedTradeoff,
    Reproduction,
    Unrecommended,
)
from service.results import constraints, leaderboards
from service.results.schemas import LeaderboardRow
from service.sweeps import sweeps

MAX_FRONT = 50
"""Rows of the front that a report lists."""

MAX_POINTS = 1000
"""Trials in its picture of the trade-off."""


def read_report(session: Session, sweep_id: str, wishes: SelectionPreferences) -> Report:
    """Raises NotFoundError, and UnprocessableError if no trial is within the wishes."""
    row = sweeps.get(session, sweep_id)
    dataset = session.get(Dataset, row.dataset_id) if row.dataset_id else None
    try:
        recommendation = RecommendationDetail(**detailed(session, row, wishes).__dict__)
    except NotFoundError:
        recommendation = None
    recommended = None if recommendation is None else recommendation.trial.trial
    confirmation = further_trainings.current(session, row.id, recommended)
    front = session.scalars(
        sa.select(Trial).where(Trial.sweep_id == row.id, Trial.pareto_rank == 1).order_by(Trial.number)
    ).all()
    return Report(
        title=row.name,
        made_at=now(session),
        sweep=sweeps.detail(session, row),
        dataset=None if dataset is None else ReportedDataset.model_validate(dataset),
        states=_states(row),
        summary_metrics=leaderboards.summary_of(row),
        front=_by_first_objective(front, row)[:MAX_FRONT],
        tradeoff=_tradeoff(session, row, recommended),
        recommendation=recommendation,
        unrecommended=None if recommendation is not None else _unrecommended(session, row, dataset),
        confirmation=None if confirmation is None else results.to_schema(session, confirmation, recommended),
        reproduction=_reproduction(
            session, row, dataset, recommendation, [] if confirmation is None else confirmation.seeds
        ),
    )


def _tradeoff(session: Session, sweep: Sweep, recommended: str | None) -> ReportedTradeoff:
    objectives = [objective["metric"] for objective in sweep.objectives]
    x = objectives[0] if len(objectives) > 1 else cost_metric(objectives, sweep.document)
    y = objectives[-1]
    of_x, of_y = aliased(TrialMetric), aliased(TrialMetric)
    query = (
        sa.select(Trial.id, Trial.number, Trial.pareto_rank, Trial.feasible, of_x.value, of_y.value)
        .join(of_x, sa.and_(of_x.trial_id == Trial.id, of_x.name == x))
        .join(of_y, sa.and_(of_y.trial_id == Trial.id, of_y.name == y))
        .where(Trial.sweep_id == sweep.id, Trial.state == TrialState.COMPLETE, Trial.replicate_of.is_(None))
    )
    # The recommended trial may be a smaller one, which is not on the front.
    place = sa.case((sa.or_(Trial.pareto_rank == 1, Trial.id == recommended), 0), else_=1)
    rows = session.execute(query.order_by(place, Trial.number.desc()).limit(MAX_POINTS)).all()
    total = len(rows)
    if total == MAX_POINTS:
        total = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
    points = [
        ReportedPoint(trial=trial, number=number, x=at_x, y=at_y, on_front=rank == 1, feasible=feasible)
        for trial, number, rank, feasible, at_x, at_y in rows
    ]
    return ReportedTradeoff(x=x, y=y, total=total, points=points)


def _unrecommended(session: Session, sweep: Sweep, dataset: Dataset | None) -> Unrecommended:
    found = constraints.summary(session, sweep)
    return Unrecommended(
        implications=implications(dataset).implications, constraints=found.constraints, loosened=found.loosened
    )


def _states(row: Sweep) -> dict[str, int]:
    # A database gives the counts in an order of its own.
    order = [*TrialState, *sorted(set(row.counts) - set(TrialState))]
    states = {name: int(row.counts[name]) for name in order if row.counts.get(name) and not name.startswith(REPLICATE)}
    further = replicates_of(row.counts)
    return {**states, "further trainings": further} if further else states


def _by_first_objective(front: Sequence[Trial], sweep: Sweep) -> list[LeaderboardRow]:
    first = sweep.objectives[0]
    sign = 1 if first["goal"] == "minimize" else -1
    ordered = sorted(front, key=lambda trial: (sign * trial.metrics.get(first["metric"], 0.0), trial.number))
    return [leaderboards.to_row(trial) for trial in ordered]


def _reproduction(
    session: Session,
    sweep: Sweep,
    dataset: Dataset | None,
    recommendation: RecommendationDetail | None,
    confirmation_seeds: list[int],
) -> Reproduction:
    environment: JsonObject = {}
    versions: dict[str, str] = {}
    if recommendation is not None:
        trial = session.get_one(Trial, recommendation.trial.trial)
        first = MetricNames.of_shapes(trial.configuration.get("shapes", [])).first
        environment_name = "environment" if first is None else f"environment{AT}{first}"
        environment = (
            session.scalar(
                sa.select(Measurement.data).where(
                    Measurement.trial_id == trial.id, Measurement.name == environment_name
                )
            )
            or {}
        )
        source = trial.reused_from or trial.id
        worker = session.scalar(
            sa.select(Worker)
            .join(Attempt, Attempt.worker_id == Worker.id)
            .where(Attempt.trial_id == source)
            .order_by(Attempt.attempt.desc())
            .limit(1)
        )
        versions = {} if worker is None else worker.versions
    seed = Trial.configuration[("training", "seed")].as_integer()
    seeds = session.scalars(sa.select(seed).where(Trial.sweep_id == sweep.id).distinct()).all()
    return Reproduction(
        layersweep=__version__,
        target=sweep.target_key,
        environment=environment,
        worker_versions=versions,
        search_seed=sweep.document.get("search", {}).get("seed", 0),
        training_seeds=sorted(each for each in seeds if each is not None),
        confirmation_seeds=confirmation_seeds,
        dataset_sha256=None if dataset is None else dataset.sha256,
        document=sweep.document,
    )
