"""What speaks for the recommended trial: read from the sweep's other trials, its data, presets and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.capabilities import Target
from service.common.states import TrialState
from service.database.models import Confirmation, Dataset, Measurement, Sweep, Trial
from service.datasets.implications import TrainedModel, implications, training_tokens
from service.leases.feasibility import named_values
from service.recommendation.choice import Candidate, candidate_of
from service.recommendation.compatibility import TriedBuild, compatibility
from service.recommendation.complexity import complexity
from service.recommendation.constraint_slack import Row, Setting, slacks
from service.recommendation.neighbours import neighbours
from service.recommendation.preferences import SelectionPreferences
from service.recommendation.preset_comparison import compare_presets
from service.recommendation.recommend import Recommended, decide
from service.recommendation.schemas import Evidence, ExplainedRecommendation
from service.recommendation.uncertainty import uncertainty
from service.results import leaderboards
from service.results import schemas as result_schemas
from service.sweeps import schemas as sweep_schemas
from service.sweeps.catalog import catalog

MAX_BROKEN = 500
"""Infeasible trials that are looked at for what a looser limit would buy, the newest first."""

MAX_POINTS = 1000
"""Trials in the picture of size against overfitting, the newest first."""

MAX_STARTS = 100


@dataclass(frozen=True, slots=True)
class _ComparedTrials:
    """Trials of the sweep that the recommended one is compared with."""

    complete: Sequence[Trial]
    broken: Sequence[Trial]
    """Those that are not feasible."""
    starts: Sequence[Trial]

    @property
    def by_id(self) -> dict[str, Trial]:
        return {trial.id: trial for trials in (self.complete, self.broken, self.starts) for trial in trials}


def detailed(session: Session, sweep: Sweep, wishes: SelectionPreferences | None = None) -> ExplainedRecommendation:
    """As `recommend`, with the evidence."""
    found = decide(session, sweep, wishes or SelectionPreferences())
    others = _compared_trials(session, sweep)
    trials = {**found.trials, **others.by_id}
    feasible = [candidate_of(each) for each in others.complete if each.feasible]

    def row(candidate: Candidate) -> result_schemas.LeaderboardRow:
        return leaderboards.to_row(trials[candidate.id])

    return ExplainedRecommendation(
        **found.answer().__dict__,
        objectives=[sweep_schemas.Objective(**each) for each in sweep.objectives],
        summary_metrics=leaderboards.summary_of(sweep),
        prefer=list(found.wishes.prefer),
        within=[str(limit) for limit in found.wishes.within],
        weights=found.wishes.weights,
        smaller=found.smaller_in_words(),
        neighbours=neighbours(found.candidate, found.choice.front, found.goals, row),
        certainty=uncertainty(found.choice, found.goals, found.wishes, found.noise, feasible, found.figures_noise),
        evidence=_evidence(session, found, others, row),
    )


def _evidence(session: Session, found: Recommended, others: _ComparedTrials, row: Row) -> Evidence:
    sweep, trial, chosen, goals = found.sweep, found.trial, found.candidate, found.goals
    dataset = session.get(Dataset, sweep.dataset_id) if sweep.dataset_id else None
    model = TrainedModel(trial.configuration["inference"], trial.metrics.get("parameter_count"))
    setting = Setting(
        chosen=chosen,
        values=named_values(trial.configuration, trial.metrics),
        front=found.choice.front,
        broken=[candidate_of(each) for each in others.broken],
        goals=goals,
        wishes=found.wishes,
        baseline_nats=found.choice.baseline_nats,
    )
    complete = [(candidate_of(each), each.pareto_rank == 1) for each in others.complete]
    starts = [(each.started_from or "", candidate_of(each)) for each in others.starts]
    builds = _builds(session, sweep, trial)
    return Evidence(
        data=implications(dataset, model),
        constraints=slacks(list(sweep.document.get("constraints", [])), setting, row),
        complexity=complexity(
            chosen,
            trial.configuration,
            complete,
            list(goals),
            training_tokens(dataset),
            found.smaller_in_words(),
            found.unconfirmed_in_words(),
        ),
        literature=compare_presets(chosen, trial.configuration, starts, goals, row),
        compatibility=compatibility(trial.configuration, sweep.target_key, _registered(session), builds),
    )


def _compared_trials(session: Session, sweep: Sweep) -> _ComparedTrials:
    def read(limit: int, *conditions: sa.ColumnElement[bool]) -> Sequence[Trial]:
        query = sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.replicate_of.is_(None), *conditions)
        return session.scalars(query.order_by(Trial.number.desc()).limit(limit)).all()

    return _ComparedTrials(
        complete=read(MAX_POINTS, Trial.state == TrialState.COMPLETE),
        broken=read(
            MAX_BROKEN, Trial.state.in_((TrialState.COMPLETE, TrialState.INFEASIBLE)), Trial.feasible.is_(False)
        ),
        starts=read(MAX_STARTS, Trial.started_from.is_not(None))[::-1],
    )


def _builds(session: Session, sweep: Sweep, trial: Trial) -> dict[str, TriedBuild]:
    """What workers found when they built the trial's further trainings for other targets."""
    children = sa.select(Confirmation.sweep_id).where(Confirmation.confirms == sweep.id)
    rows = session.scalars(
        sa.select(Measurement.data)
        .join(Trial, Trial.id == Measurement.trial_id)
        .where(Measurement.name == "builds", Trial.sweep_id.in_(children), Trial.started_from == f"trial:{trial.id}")
        .order_by(Trial.id)
    )
    return {target: found for builds in rows for target, found in builds.items()}


def _registered(session: Session) -> list[Target]:
    targets = [{**target.capabilities, "key": target.key} for target in catalog.targets(session)]
    return cast("list[Target]", targets)
