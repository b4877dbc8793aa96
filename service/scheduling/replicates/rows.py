"""Replicates as rows: read when a sweep is led, written with the changes of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.hashing import canonical_hash
from service.common.states import OPEN_TRIALS, TrialState
from service.database.models import Event, Measurement, Sweep, Trial, TrialMetric
from service.database.sessions import UNSYNCHRONIZED, now
from service.events.events import NewEvent
from service.leases.feasibility import describe_final_violations
from service.leases.trials import FIRST_TRAINING
from service.leases.worker_reports import own_figures
from service.scheduling.replicates.means import LEARNT, LOSS, TRAININGS
from service.scheduling.replicates.replicates import KnownTrial, ReplicateHistory, most_replicates
from service.scheduling.sweep_state import Changes, MeanFigures, NewReplicate, SweepFacts

FIRST_SEED = 100_001
"""Further seeds are counted from here: past those that sweeps name, and those of confirmations."""

_METRICS = cast("sa.Table", TrialMetric.__table__)


Ranked = Sequence[tuple[str, tuple[float, ...]]]
"""Feasible complete trials with the values of their objectives."""


def load(session: Session, sweep: Sweep, facts: SweepFacts, told: Ranked) -> tuple[ReplicateHistory, Ranked]:
    """What was asked and learnt up to the last event that was worked in; and the trials as they were `told`, with what
    further trainings made of their values."""
    if not most_replicates(facts.document, facts.sampler):
        return ReplicateHistory(), told
    history = ReplicateHistory(_known_trials(session, sweep.id, [trial_id for trial_id, _ in told]))
    _read_replicates(session, sweep, history)
    return history, [(trial_id, history.values_of(trial_id, facts.objectives)) for trial_id in history.trials]


def store(session: Session, changes: Changes) -> list[NewEvent]:
    """Queue further trainings, and give trials the means over those that ended; returns the events that say so."""
    return [*_insert(session, changes.replicates), *_store_means(session, changes.means)]


def _read_replicates(session: Session, sweep: Sweep, history: ReplicateHistory) -> None:
    later = sa.select(Event.trial_id).where(
        Event.sweep_id == sweep.id, Event.sequence > sweep.scheduled_sequence, Event.kind == "trial.ended"
    )
    not_worked_in = set(session.scalars(later))
    replicates = session.execute(
        sa.select(Trial.id, Trial.replicate_of, Trial.state)
        .where(Trial.sweep_id == sweep.id, Trial.replicate_of.is_not(None))
        .order_by(Trial.number.desc())
    )
    for replicate_id, trial_id, state in replicates:
        assert trial_id is not None
        history.numbered += 1
        is_open = state in OPEN_TRIALS or replicate_id in not_worked_in
        if is_open:
            history.outstanding[replicate_id] = trial_id
        if is_open or state != TrialState.CANCELLED:
            history.asked[trial_id] = history.asked.get(trial_id, 0) + 1


def _known_trials(session: Session, sweep_id: str, trial_ids: Sequence[str]) -> dict[str, KnownTrial]:
    rows = session.execute(
        sa.select(Trial.id, Trial.number, Trial.metrics, Trial.violations).where(
            Trial.sweep_id == sweep_id, Trial.state == TrialState.COMPLETE, Trial.feasible.is_(True)
        )
    )
    found = {trial_id: KnownTrial(number, metrics, violations or {}) for trial_id, number, metrics, violations in rows}
    return {trial_id: found[trial_id] for trial_id in trial_ids if trial_id in found}


def _insert(session: Session, replicates: Mapping[str, NewReplicate]) -> list[NewEvent]:
    if not replicates:
        return []
    time = now(session)
    originals = {
        trial.id: trial
        for trial in session.scalars(
            sa.select(Trial).where(Trial.id.in_({replicate.of_trial for replicate in replicates.values()}))
        )
    }
    new: list[NewEvent] = []
    for replicate_id, replicate in replicates.items():
        session.add(_row(replicate_id, replicate, originals[replicate.of_trial], time))
        new.append(
            NewEvent("trial.queued", replicate_id, {"number": replicate.number, "replicate_of": replicate.of_trial})
        )
    session.flush()
    return new


def _row(replicate_id: str, replicate: NewReplicate, trial: Trial, time: float) -> Trial:
    training = trial.configuration["training"]
    own = int(training.get("seed", 0))
    seed = FIRST_SEED + replicate.earlier
    seed += FIRST_SEED <= own <= seed
    configuration = {**trial.configuration, "training": {**training, "seed": seed}}
    return Trial(
        id=replicate_id,
        sweep_id=trial.sweep_id,
        project=trial.project,
        number=replicate.number,
        state=TrialState.QUEUED,
        parameters={**trial.parameters, "training.seed": seed},
        configuration=configuration,
        point_hash=canonical_hash(configuration),
        # Its figures are part of another trial's, and lack what was not measured again.
        reuse_key="",
        replicate_of=trial.id,
        target_key=trial.target_key,
        max_attempts=trial.max_attempts,
        metrics=own_figures(trial.metrics),
        created_at=time,
    )


def _store_means(session: Session, means: Mapping[str, list[MeanFigures]]) -> list[NewEvent]:
    new: list[NewEvent] = []
    for trial_id, figures in means.items():
        trial = session.get_one(Trial, trial_id, populate_existing=True)
        if TRAININGS not in trial.metrics:
            own = {name: trial.metrics[name] for name in LEARNT if name in trial.metrics}
            data = {"seed": trial.configuration["training"].get("seed", 0), "metrics": own}
            session.add(Measurement(trial_id=trial_id, name=FIRST_TRAINING, attempt=trial.attempt, data=data))
        newest = figures[-1]
        changed = {name: value for name, value in newest.metrics.items() if trial.metrics.get(name) != value}
        trial.metrics, trial.violations, trial.feasible = newest.metrics, newest.violations, newest.feasible
        trial.reason = describe_final_violations(newest.violations, newest.metrics)
        session.flush()
        _store_metrics(session, trial.sweep_id, trial_id, changed)
        new += [
            NewEvent(
                "trial.replicated",
                trial_id,
                {"number": each.number, "trainings": int(each.metrics[TRAININGS]), LOSS: each.metrics[LOSS]},
            )
            for each in figures
        ]
    return new


def _store_metrics(session: Session, sweep_id: str, trial_id: str, changed: Mapping[str, float]) -> None:
    session.execute(
        sa.delete(TrialMetric).where(TrialMetric.trial_id == trial_id, TrialMetric.name.in_(list(changed))),
        execution_options=UNSYNCHRONIZED,
    )
    rows = [
        {"trial_id": trial_id, "sweep_id": sweep_id, "name": name, "value": float(value)}
        for name, value in changed.items()
    ]
    if rows:
        session.connection().execute(sa.insert(_METRICS), rows)
