"""Leases: the only place where they are written.

    queued ──claim──▶ running ──finish──▶ complete | infeasible | pruned | failed
       ▲                │ │ └──cancel──▶ cancelled
       └────release─────┘ └──a lapsed lease is claimed again: another attempt, and charged; too many: failed

A lease is fenced by the attempt's number: every write of a holder matches the trial, the attempt and the state
`running`, and one that matches nothing has lost its lease. Time is the database's. Locks are taken trial before sweep.

All functions work inside the caller's transaction and append the events that belong to what they do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningUpdate

from service import attempts, events, schemas, trials
from service.db import now, now_sql
from service.errors import LeaseLost, NotFound, Problem, Unprocessable
from service.judging import check_complete, check_metrics, judge
from service.models import Dataset, Measurement, Sweep, Trial, TrialMetric, Worker
from service.notifications import QUEUE

Action = Literal["continue", "cancel", "prune"]

TOPIC = QUEUE
"""Announced when there may be something to claim."""

_MEASUREMENT_NAME_CHARACTERS = 64
_EXPIRE_BATCH = 100
_GOING_SWEEPS = ("active", "paused")
_LAPSED = "the lease lapsed without a heartbeat"
_UNSYNCHRONIZED: Mapping[str, Any] = {"synchronize_session": False}
_Candidate = aliased(Trial, name="candidate")


def has_claimable(session: Session, worker_id: str) -> bool:
    """True when a claim by this worker may succeed: a cheap look before the write."""
    keys = _target_keys(_worker(session, worker_id))
    return session.scalar(_claimable(keys, full=()).limit(1)) is not None


def claim(session: Session, worker_id: str, lease_seconds: float) -> schemas.Lease | None:
    """Give the oldest claimable trial of the worker's targets to it; None when there is none.

    Claimable is what is queued in an active sweep below its parallel limit, or running with a lapsed lease.
    """
    worker = _worker(session, worker_id)
    _touch(session, worker_id)
    keys = _target_keys(worker)
    expire(session, target_keys=keys)
    full: list[str] = []
    while True:
        savepoint = session.begin_nested()
        trial = session.scalars(_take(_claimable(keys, full), worker_id, lease_seconds)).one_or_none()
        if trial is None:
            savepoint.rollback()
            return None
        sweep = _begin_attempt(session, trial, worker_id)
        if sweep is not None:
            savepoint.commit()
            return _lease(session, trial, sweep, lease_seconds)
        # Another claim filled the sweep between our look at it and our lock of it.
        full.append(trial.sweep_id)
        savepoint.rollback()


def heartbeat(session: Session, trial_id: str, attempt: int, lease_seconds: float) -> Action:
    """Renew the lease. "cancel": stop and throw the attempt away. Raises LeaseLost."""
    trial = _hold(session, trial_id, attempt, lease_seconds)
    return _action(session, trial_id, attempt, trial)


def report(session: Session, trial_id: str, attempt: int, body: schemas.LeaseReport, lease_seconds: float) -> Action:
    """Store what the attempt reports and renew the lease. Losses sent twice are stored once. Raises LeaseLost."""
    trial = _hold(session, trial_id, attempt, lease_seconds)
    if trial is not None:
        _store_report(session, trial, body)
    return _action(session, trial_id, attempt, trial)


def finish(session: Session, trial_id: str, attempt: int, body: schemas.LeaseFinish) -> Trial:
    """End the trial with the attempt's outcome, metrics and measurements, and judge the sweep's constraints.

    The finish that was accepted may be sent again. Raises LeaseLost for a stale attempt, Unprocessable for metrics that
    are unknown or missing.
    """
    check_metrics(body.metrics)
    _check_measurements(body.measurements)
    digest = _digest(body)
    trial = _hold(session, trial_id, attempt, None)
    row = attempts.find(session, trial_id, attempt)
    if trial is None or row is None:
        if row is not None and row.finish_hash == digest:
            return trials.get(session, trial_id)
        raise _lost(session, trial_id, attempt)
    sweep = session.get_one(Sweep, trial.sweep_id)
    constraints: list[str] = sweep.document.get("constraints", [])
    trial.metrics = {**trial.metrics, **body.metrics}
    if body.outcome == "complete":
        check_complete(sweep.objectives, constraints, trial.metrics)
    if body.outcome in ("complete", "infeasible"):
        trial.violations = violations = judge(constraints, trial.configuration, trial.metrics)
        trial.feasible = body.outcome == "complete" and all(violation <= 0 for violation in violations.values())
    _store_metrics(session, trial)
    session.add_all(
        Measurement(trial_id=trial_id, name=name, attempt=attempt, data=data)
        for name, data in body.measurements.items()
    )
    row.finish_hash = digest
    attempts.append_log(row, body.log)
    _end(session, trial, body.outcome, body.reason)
    return trial


def release(session: Session, trial_id: str, attempt: int, body: schemas.LeaseRelease) -> Trial:
    """Give the trial back to the queue; charged too often, it fails; in a sweep that has ended, it is cancelled.

    Raises LeaseLost.
    """
    trial = _hold(session, trial_id, attempt, None)
    if trial is None:
        raise _lost(session, trial_id, attempt)
    trial.charged_attempts += body.charge
    sweep_state = session.scalars(sa.select(Sweep.state).where(Sweep.id == trial.sweep_id)).one()
    if sweep_state not in _GOING_SWEEPS:
        _end(session, trial, "cancelled", f"the sweep is {sweep_state}")
    elif trial.charged_attempts >= trial.max_attempts:
        _end(session, trial, "failed", f"{_used_up(trial)}: {body.reason}")
    else:
        attempts.end(session, trial_id, attempt, "released", body.reason, now(session))
        trial.state, trial.worker_id, trial.phase, trial.progress = "queued", None, None, None
        session.flush()
        trials.count(session, trial.sweep_id, {"running": -1, "queued": 1})
        data = {"number": trial.number, "attempt": attempt, "reason": body.reason, "charged": body.charge}
        events.append(session, trial.sweep_id, "trial.queued", trial_id=trial_id, data=data)
    return trial


def expire(session: Session, *, target_keys: Sequence[str] | None = None) -> int:
    """End the trials whose lease lapsed and that no claim will take again; return how many.

    Those are trials whose attempts are used up (they fail) and trials of sweeps that have ended (they are cancelled).
    """
    statement = (
        sa.select(Trial, Sweep.state)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(
            sa.text("trials.state IN ('queued', 'running')"),  # word for word the condition of the index
            Trial.state == "running",
            Trial.lease_expires_at < now_sql(),
            sa.or_(Trial.charged_attempts + 1 >= Trial.max_attempts, Sweep.state.not_in(_GOING_SWEEPS)),
        )
        # One order for all, so that two processes that lock several sweeps do not wait for one another.
        .order_by(Trial.sweep_id, Trial.id)
        .limit(_EXPIRE_BATCH)
        .with_for_update(of=Trial, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    if target_keys is not None:
        statement = statement.where(Trial.target_key.in_(target_keys))
    rows = session.execute(statement).all()
    for trial, sweep_state in rows:
        trial.charged_attempts += 1
        attempts.end(session, trial.id, trial.attempt, "lost", _LAPSED, now(session))
        if sweep_state in _GOING_SWEEPS:
            _end(session, trial, "failed", f"{_used_up(trial)}: {_LAPSED}")
        else:
            _end(session, trial, "cancelled", f"the sweep is {sweep_state}")
    return len(rows)


def cancel_open(session: Session, sweep_id: str, reason: str) -> int:
    """Cancel every queued and running trial of the sweep; return how many. Workers learn it when they next ask."""
    rows = session.scalars(
        sa.select(Trial)
        .where(Trial.sweep_id == sweep_id, Trial.state.in_(("queued", "running")))
        .order_by(Trial.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    for trial in rows:
        _end(session, trial, "cancelled", reason)
    return len(rows)


# --- claiming --------------------------------------------------------------------------------------------------------


def _claimable(target_keys: Sequence[str], full: Sequence[str]) -> sa.Select[str]:
    return (
        sa.select(_Candidate.id)
        .join(Sweep, Sweep.id == _Candidate.sweep_id)
        .where(
            # Word for word the condition of the index: finished trials cost a claim nothing.
            sa.text("candidate.state IN ('queued', 'running')"),
            _Candidate.target_key.in_(target_keys),
            Sweep.state == "active",
            sa.or_(
                sa.and_(
                    _Candidate.state == "queued",
                    Sweep.running_count < Sweep.budget["parallel"].as_integer(),
                    Sweep.id.not_in(full),
                ),
                sa.and_(
                    _Candidate.state == "running",
                    _Candidate.lease_expires_at < now_sql(),
                    _Candidate.charged_attempts + 1 < _Candidate.max_attempts,
                ),
            ),
        )
        .order_by(_Candidate.id)
    )


def _take(candidates: sa.Select[str], worker_id: str, lease_seconds: float) -> ReturningUpdate[Trial]:
    oldest = candidates.limit(1).with_for_update(of=_Candidate, skip_locked=True).scalar_subquery()
    return (
        sa.update(Trial)
        .where(Trial.id == oldest)
        .values(
            state="running",
            attempt=Trial.attempt + 1,
            charged_attempts=Trial.charged_attempts + sa.case((Trial.state == "running", 1), else_=0),
            worker_id=worker_id,
            lease_expires_at=now_sql() + lease_seconds,
            started_at=sa.func.coalesce(Trial.started_at, now_sql()),
            phase=None,
            progress=None,
        )
        .returning(Trial)
        .execution_options(**_UNSYNCHRONIZED, populate_existing=True)
    )


def _begin_attempt(session: Session, trial: Trial, worker_id: str) -> Sweep | None:
    """Write what belongs to a claim; None when the sweep may not run one more trial."""
    time = now(session)
    lapsed = attempts.end(session, trial.id, trial.attempt - 1, "lost", _LAPSED, time)
    sweep = session.scalars(
        sa.select(Sweep).where(Sweep.id == trial.sweep_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    if sweep.state != "active" or not (lapsed or sweep.running_count < sweep.budget["parallel"]):
        return None
    if not lapsed:
        trials.count(session, sweep.id, {"queued": -1, "running": 1})
    if sweep.started_at is None:
        sweep.started_at = time
    attempts.begin(session, trial.id, trial.attempt, worker_id, time)
    data = {"number": trial.number, "attempt": trial.attempt, "worker": worker_id}
    events.append(session, sweep.id, "trial.running", trial_id=trial.id, data=data)
    return sweep


def _lease(session: Session, trial: Trial, sweep: Sweep, lease_seconds: float) -> schemas.Lease:
    dataset = None if sweep.dataset_id is None else session.get_one(Dataset, sweep.dataset_id)
    assert sweep.target is not None, "a sweep with trials has a target"
    return schemas.Lease(
        trial=trial.id,
        attempt=trial.attempt,
        sweep=sweep.id,
        number=trial.number,
        runtime=sweep.target["runtime"],
        target_key=trial.target_key,
        configuration=trial.configuration,
        dataset=None if dataset is None else _lease_dataset(dataset),
        constraints=sweep.document.get("constraints", []),
        lease_seconds=lease_seconds,
    )


def _lease_dataset(dataset: Dataset) -> schemas.LeaseDataset:
    parts = {name: part for name, part in dataset.parts.items() if name != "test"}
    return schemas.LeaseDataset(
        id=dataset.id, name=dataset.name, task=dataset.task, sha256=dataset.sha256, facts=dataset.facts, parts=parts
    )


def _worker(session: Session, worker_id: str) -> Worker:
    worker = session.get(Worker, worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id}: register again")
    return worker


def _target_keys(worker: Worker) -> list[str]:
    return [target["key"] for target in worker.targets if not target.get("build_only")]


def _touch(session: Session, worker_id: str | None) -> None:
    statement = sa.update(Worker).where(Worker.id == worker_id).values(last_seen_at=now_sql())
    session.execute(statement, execution_options=_UNSYNCHRONIZED)


# --- holding ---------------------------------------------------------------------------------------------------------


def _hold(session: Session, trial_id: str, attempt: int, lease_seconds: float | None) -> Trial | None:
    """Lock the trial for the holder of its lease and renew that (None: it ends here); None when the lease is lost."""
    trial = session.scalars(
        sa.update(Trial)
        .where(Trial.id == trial_id, Trial.attempt == attempt, Trial.state == "running")
        .values(lease_expires_at=None if lease_seconds is None else now_sql() + lease_seconds)
        .returning(Trial)
        .execution_options(**_UNSYNCHRONIZED, populate_existing=True)
    ).one_or_none()
    if trial is not None:
        _touch(session, trial.worker_id)
    return trial


def _action(session: Session, trial_id: str, attempt: int, held: Trial | None) -> Action:
    if held is None:
        trial = trials.get(session, trial_id)
        if trial.state == "cancelled" and trial.attempt == attempt:
            return "cancel"
        raise _lost(session, trial_id, attempt)
    state = session.scalars(sa.select(Sweep.state).where(Sweep.id == held.sweep_id)).one()
    return "continue" if state in _GOING_SWEEPS else "cancel"


def _lost(session: Session, trial_id: str, attempt: int) -> LeaseLost:
    trial = trials.get(session, trial_id)
    return LeaseLost(
        f"attempt {attempt} of trial {trial_id} does not run: the trial is {trial.state}, "
        f"its newest attempt is {trial.attempt}"
    )


def _store_report(session: Session, trial: Trial, body: schemas.LeaseReport) -> None:
    row = attempts.find(session, trial.id, trial.attempt)
    assert row is not None, "a running trial has an attempt"
    time = now(session)
    attempts.append_log(row, body.log)
    facts: dict[str, Any] = {"number": trial.number, "attempt": trial.attempt}
    if body.phase is not None and body.phase != trial.phase:
        attempts.enter_phase(row, body.phase, time)
        trial.phase, trial.progress = body.phase, None
        events.append(session, trial.sweep_id, "trial.phase", trial_id=trial.id, data=facts | {"phase": body.phase})
    if body.progress is not None:
        trial.progress = body.progress
    if body.losses:
        attempts.store_losses(session, trial.id, trial.attempt, body.losses, time)
        facts["losses"] = body.losses[-1].model_dump(exclude_none=True)
    if body.losses or body.progress is not None:
        facts |= {"phase": trial.phase, "progress": trial.progress}
        events.append(session, trial.sweep_id, "trial.report", trial_id=trial.id, data=facts)


# --- ending ----------------------------------------------------------------------------------------------------------


def _store_metrics(session: Session, trial: Trial) -> None:
    session.execute(sa.delete(TrialMetric).where(TrialMetric.trial_id == trial.id), execution_options=_UNSYNCHRONIZED)
    session.add_all(
        TrialMetric(trial_id=trial.id, sweep_id=trial.sweep_id, name=name, value=float(value))
        for name, value in trial.metrics.items()
    )


def _end(session: Session, trial: Trial, state: str, reason: str | None) -> None:
    before, time = trial.state, now(session)
    attempts.end(session, trial.id, trial.attempt, state, reason, time)
    trial.state, trial.reason, trial.phase, trial.progress = state, reason, None, None
    trial.lease_expires_at, trial.ended_at = None, time
    session.flush()
    trials.count(session, trial.sweep_id, {before: -1, state: 1})
    data = {"number": trial.number, "state": state, "feasible": trial.feasible, "reused": False}
    events.append(session, trial.sweep_id, "trial.ended", trial_id=trial.id, data=data)


def _used_up(trial: Trial) -> str:
    return f"{trial.charged_attempts} of at most {trial.max_attempts} attempts were lost, the last one so"


def _check_measurements(measurements: Mapping[str, Any]) -> None:
    remedy = f"a name of 1 to {_MEASUREMENT_NAME_CHARACTERS} characters"
    for name in measurements:
        if not 1 <= len(name) <= _MEASUREMENT_NAME_CHARACTERS:
            problem = Problem(f"/measurements/{name}", "is not a name of a measurement", remedy)
            raise Unprocessable(f"a measurement has {remedy}", problems=[problem])


def _digest(body: schemas.LeaseFinish) -> str:
    canonical = json.dumps(body.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
