"""Trials: how they are found and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.noise import shown
from service.common.paging import decode_token, first_page
from service.database.models import IS_SEARCH, Attempt, Measurement, Sweep, Trial
from service.database.sessions import now
from service.errors import NotFoundError
from service.leases import curves
from service.leases import schemas as lease_schemas

FIRST_TRAINING = "first_training"
"""The measurement that keeps what a trial's own training came to, once its figures are means over several."""

LARGEST_NUMBER_DIGITS = 10
"""A trial's number has fewer digits: a larger one is no column's."""

SHOWN_ATTEMPTS = 20
"""The newest attempts of a trial that are shown: each has a log, and one that is given back is charged to nobody."""


def get(session: Session, trial_id: str) -> Trial:
    """Return the trial, or raise NotFoundError."""
    trial = session.get(Trial, trial_id)
    if trial is None:
        raise NotFoundError(f"there is no trial {trial_id}")
    return trial


def get_by_number(session: Session, sweep_id: str, number: int) -> Trial:
    """Return the trial of that number in the sweep, or raise NotFoundError."""
    trial = session.scalar(sa.select(Trial).where(Trial.sweep_id == sweep_id, Trial.number == number))
    if trial is None:
        raise NotFoundError(f"there is no trial {number} in sweep {sweep_id}")
    return trial


def reference_of(session: Session, trial: Trial) -> str:
    """ "SWEEP/NUMBER" with the sweep's name, or with its id if the name is that of another sweep, too, or of none that
    commands look for."""
    sweep = session.get_one(Sweep, trial.sweep_id)
    named = f"{sweep.name}/{trial.number}"
    is_found = find_by_reference(session, named, trial.project) == trial.id
    return named if is_found else f"{sweep.id}/{trial.number}"


def find_by_reference(session: Session, reference: str, project: str) -> str | None:
    """The id of the trial that "SWEEP/NUMBER" names; SWEEP: a sweep's id, or its name (the newest of that name, but no
    confirmation)."""
    sweep, _, number = reference.rpartition("/")
    if not (sweep and number.isascii() and number.isdigit() and len(number) < LARGEST_NUMBER_DIGITS):
        return None
    # Ids sort by the time at which they were made. An id precedes names that look like it.
    newest = sa.case((Sweep.id == sweep.upper(), 0), else_=1), Sweep.id.desc()
    named = sa.or_(Sweep.id == sweep.upper(), sa.and_(IS_SEARCH, Sweep.name == sweep))
    found = session.scalar(sa.select(Sweep.id).where(Sweep.project == project, named).order_by(*newest).limit(1))
    return session.scalar(sa.select(Trial.id).where(Trial.sweep_id == found, Trial.number == int(number)))


def page(
    session: Session, sweep_id: str, *, states: Sequence[str], page_size: int, page_token: str | None
) -> tuple[list[Trial], str | None]:
    """Return trials of the sweep in the order of their numbers, and the token of the next page."""
    if session.get(Sweep, sweep_id) is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    statement = sa.select(Trial).where(Trial.sweep_id == sweep_id, Trial.replicate_of.is_(None))
    if states:
        statement = statement.where(Trial.state.in_(states))
    if page_token is not None:
        (after,) = decode_token(page_token, int)
        statement = statement.where(Trial.number > after)
    rows = session.scalars(statement.order_by(Trial.number).limit(page_size + 1)).all()
    return first_page(rows, page_size, lambda row: (row.number,))


def trainings(session: Session, trial: Trial) -> list[lease_schemas.Training]:
    """The trial's own training and its replicates; empty if it was trained once."""
    replicates = session.scalars(
        sa.select(Trial)
        # Their numbers are below 0: by the index of numbers, the others are not looked at.
        .where(Trial.sweep_id == trial.sweep_id, Trial.number < 0, Trial.replicate_of == trial.id)
        .order_by(Trial.number.desc())
    ).all()
    if not replicates:
        return []
    first = session.scalar(
        sa.select(Measurement.data).where(Measurement.trial_id == trial.id, Measurement.name == FIRST_TRAINING)
    )
    own = trial.metrics if first is None else first["metrics"]
    return [_training(trial, own), *(_training(each, each.metrics) for each in replicates)]


def _training(trial: Trial, metrics: Mapping[str, float]) -> lease_schemas.Training:
    return lease_schemas.Training(
        trial=trial.id,
        seed=int(trial.configuration["training"].get("seed", 0)),
        state=trial.state,
        validation_loss=metrics.get("validation_loss"),
    )


def to_schema(trial: Trial | sa.Row[*tuple[Any, ...]]) -> lease_schemas.Trial:
    """The trial, or a row with the columns that are shown, as it crosses HTTP."""
    return lease_schemas.Trial(
        id=trial.id,
        sweep=trial.sweep_id,
        number=trial.number,
        state=trial.state,  # pyright: ignore[reportArgumentType] - the table's check constraint says the same
        phase=trial.phase,  # pyright: ignore[reportArgumentType] - written from the same literal
        progress=trial.progress,
        attempt=trial.attempt,
        worker=trial.worker_id,
        parameters=dict(trial.parameters),
        metrics=trial.metrics,
        feasible=trial.feasible,
        violations=trial.violations,
        noise=shown(trial.noise, trial.metrics, trial.feasible),
        rank=trial.pareto_rank,
        on_front=trial.pareto_rank == 1,
        reason=trial.reason,
        reused_from=trial.reused_from,
        started_from=trial.started_from,
        promoted=trial.promoted,
        created_at=trial.created_at,
        started_at=trial.started_at,
        ended_at=trial.ended_at,
    )


def detail(session: Session, trial: Trial) -> lease_schemas.TrialDetail:
    """The trial with its attempts, the losses of its newest attempt, and its measurements.

    A trial that was not run but reused shows the attempts, curve and measurements of the one that it was reused from.
    """
    source, newest = _executed(session, trial)
    query = sa.select(Attempt).where(Attempt.trial_id == source).order_by(Attempt.attempt.desc()).limit(SHOWN_ATTEMPTS)
    attempts = session.scalars(query).all()[::-1]
    measurements = session.scalars(
        sa.select(Measurement).where(Measurement.trial_id == source).order_by(Measurement.name)
    ).all()
    time = now(session)
    return lease_schemas.TrialDetail(
        **to_schema(trial).__dict__,
        replicate_of=trial.replicate_of,
        trainings=trainings(session, trial),
        predicted=trial.predicted,
        configuration=trial.configuration,
        attempts=[_attempt(attempt, time) for attempt in attempts],
        curve=curves.read(session, source, newest),
        measurements={measurement.name: measurement.data for measurement in measurements},
    )


def curve(session: Session, trial: Trial) -> list[lease_schemas.CurvePoint]:
    """The losses of the trial's newest attempt, or of the trial that it was reused from."""
    return curves.read(session, *_executed(session, trial))


def _executed(session: Session, trial: Trial) -> tuple[str, int]:
    """The trial and the attempt in which it was executed."""
    original = None if trial.reused_from is None else session.get(Trial, trial.reused_from)
    executed = trial if original is None else original
    return executed.id, executed.attempt


def _attempt(attempt: Attempt, time: float) -> lease_schemas.Attempt:
    phases = [phase.copy() for phase in attempt.phases]
    if phases and attempt.ended_at is None:
        phases[-1]["seconds"] = max(0.0, time - phases[-1]["started_at"])
    return lease_schemas.Attempt(
        attempt=attempt.attempt,
        worker=attempt.worker_id,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        outcome=attempt.outcome,
        reason=attempt.reason,
        phases=[lease_schemas.PhaseTime.model_validate(phase) for phase in phases],
        log=attempt.log,
    )
