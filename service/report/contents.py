"""The whole story of a sweep, gathered in one read."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.metric_names import MetricNames
from layers.metrics import AT
from layersweep import __version__
from layersweep.json_values import JsonObject
from service.common.states import TrialState
from service.confirmation import results
from service.confirmation.schemas import RecommendationDetail
from service.database.counts import REPLICATE, replicates_of
from service.database.models import Attempt, Dataset, Measurement, Sweep, Trial, Worker
from service.database.sessions import now
from service.datasets.implications import implications
from service.errors import NotFoundError
from service.recommendation import further_trainings
from service.recommendation.evidence import detailed
from service.recommendation.preferences import SelectionPreferences
from service.report.schemas import Report, ReportedDataset, Reproduction, Unrecommended
from service.results import constraints, leaderboards
from service.results.schemas import LeaderboardRow
from service.sweeps import sweeps

MAX_FRONT = 50
"""Rows of the front that a report lists."""


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
        front=_by_first_objective(front, row)[:MAX_FRONT],
        recommendation=recommendation,
        unrecommended=None if recommendation is not None else _unrecommended(session, row, dataset),
        confirmation=None if confirmation is None else results.to_schema(session, confirmation, recommended),
        reproduction=_reproduction(
            session, row, dataset, recommendation, [] if confirmation is None else confirmation.seeds
        ),
    )


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
