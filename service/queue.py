"""Leases: the only place where they are written.

    queued ──claim──▶ running ──finish──▶ complete | infeasible | pruned | failed
       ▲                │ │ └──cancel──▶ cancelled
       └────release─────┘ └──a lapsed lease is claimed again: another attempt, and charged; too many: failed

Where a sweep that ended is extended, what was cancelled or had failed may be reopened: queued again.

A lease is fenced by the attempt's number: every write of a holder matches the trial, the attempt and the state
`running`, and one that matches nothing has lost its lease. Time is the database's. Locks are taken sweep before trial,
in the order of `service.row_locks`.

All functions work inside the caller's transaction and append the events that belong to what they do. What runs for
every trial is built once, in `service.lease_statements`: building a statement takes longer than running it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy.orm import Session

from service import attempts, curves, events, lease_schemas, row_locks, trials, worker_reports
from service import lease_statements as sql
from service.db import at_end, defer, now
from service.errors import LeaseLost, NotFound
from service.events import NewEvent
from service.judging import broken_at_the_end, check_complete, judge
from service.models import CONFIRMATION
from service.notifications import QUEUE
from service.reuse_keys import reuse_key
from service.row_locks import ChangesTrial, Claims, Held
from service.workers import results_version_of

Action = Literal["continue", "cancel", "prune"]

TOPIC = QUEUE
"""Announced when there may be something to claim."""

_EXPIRE_BATCH = 100
_LAPSED = "the lease lapsed without a heartbeat"


def has_claimable(session: Session, worker_id: str) -> bool:
    """True when a claim by this worker may succeed: a cheap look before the write."""
    connection = session.connection()
    keys = _target_keys(connection.scalar(sql.TARGETS, {"of_worker": worker_id}), worker_id)
    return connection.scalar(sql.CLAIMABLE, {"target_keys": keys, "full": [], "of_worker": worker_id}) is not None


def claim(session: Session, worker_id: str, lease_seconds: float) -> lease_schemas.Lease | None:
    """Give the oldest claimable trial of the worker's targets to it; None when there is none.

    Claimable is what is queued in an active sweep below its parallel limit, or running with a lapsed lease. A claim
    that shares its transaction may also come too late for what it saw (None): `has_claimable` says whether there is
    more.
    """
    connection = session.connection()
    need = Claims(worker_id)
    held = row_locks.take(session, need)
    targets = held.targets.get(worker_id) if held else connection.scalar(sql.TARGETS, {"of_worker": worker_id})
    keys = _target_keys(targets, worker_id)
    at_end(session, sql.SEE_WORKER, worker_id, {"of_worker": worker_id})
    full: list[str] = []
    while True:
        wanted = {"target_keys": keys, "full": full, "of_worker": worker_id}
        if held is None:
            trial = connection.execute(sql.FIND, wanted).one_or_none()
        else:
            trial = connection.execute(sql.FIND_IN_SWEEPS, wanted | {"sweeps": sorted(held.sweeps)}).one_or_none()
        if trial is None:
            if held is not None and (more := row_locks.take_more(session, need, held)) is not None:
                held = more
                continue
            _expire_of_targets(session, keys, held)
            return None
        if _begin_attempt(session, trial, worker_id, lease_seconds):
            _key_results(session, trial, targets or [])
            return _lease(trial, lease_seconds)
        # Another claim filled the sweep between our look at it and our lock of it.
        full.append(trial.sweep_id)


def is_held(session: Session, trial_id: str, attempt: int) -> bool:
    """Whether the attempt holds its trial, and its lease has not lapsed: nobody else can have it, or get it now."""
    return session.connection().scalar(sql.IS_HELD_NOW, {"of_trial": trial_id, "attempt_number": attempt}) is not None


def heartbeat(session: Session, trial_id: str, attempt: int, lease_seconds: float) -> Action:
    """Renew the lease. "cancel": stop and throw the attempt away. Raises LeaseLost."""
    return _action(session, trial_id, attempt, _renew(session, trial_id, attempt, lease_seconds))


def report(
    session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseReport, lease_seconds: float
) -> Action:
    """Store what the attempt reports and renew the lease. Losses sent twice are stored once.

    Raises LeaseLost, and Unprocessable for what `worker_reports` refuses.
    """
    row_locks.take(session, ChangesTrial(trial_id))
    trial = _renew(session, trial_id, attempt, lease_seconds)
    if trial is not None:
        _store_report(session, trial, body)
    return _action(session, trial_id, attempt, trial)


def finish(session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseFinish) -> lease_schemas.Trial:
    """End the trial with the attempt's outcome, metrics and measurements, and judge the sweep's constraints.

    The finish that was accepted may be sent again. Raises LeaseLost for a stale attempt, Unprocessable for metrics that
    are missing, and for what `worker_reports` refuses.
    """
    digest = _digest(body)
    row_locks.take(session, ChangesTrial(trial_id))
    trial = _held(session, trial_id, attempt)
    if trial is None:
        if attempts.finished_with(session, trial_id, attempt) == digest:
            return trials.to_schema(trials.get(session, trial_id))
        raise _lost(session, trial_id, attempt)
    worker_reports.check_measurements(body.measurements)
    worker_reports.check_reason(body.outcome, body.reason)
    worker_reports.check_metrics(body.metrics, trial.metrics, confirms=trial.sampler == CONFIRMATION)
    constraints: list[str] = trial.constraints or []
    metrics = {**trial.metrics, **body.metrics, **worker_reports.own_figures(trial.metrics)}
    if body.outcome == "complete":
        check_complete(trial.objectives, constraints, metrics)
    violations, feasible = trial.violations, trial.feasible
    if body.outcome in ("complete", "infeasible"):
        violations = judge(constraints, trial.configuration, metrics)
        feasible = body.outcome == "complete" and all(violation <= 0 for violation in violations.values())
    reason = body.reason
    if body.outcome == "complete" and reason is None:
        reason = broken_at_the_end(violations or {}, metrics)
    _store_results(session, trial, metrics, body.measurements)
    attempts.append_log(session, trial_id, attempt, body.log)
    findings = {"metrics": metrics, "violations": violations, "feasible": feasible}
    return _end(session, trial, body.outcome, reason, findings=findings, finish_hash=digest)


def release(session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseRelease) -> lease_schemas.Trial:
    """Give the trial back to the queue; charged too often, it fails; in a sweep that has ended, it is cancelled.

    Raises LeaseLost.
    """
    row_locks.take(session, ChangesTrial(trial_id))
    trial = _held(session, trial_id, attempt)
    if trial is None:
        raise _lost(session, trial_id, attempt)
    charged = trial.charged_attempts + body.charge
    if trial.sweep_state not in sql.GOING_SWEEPS:
        return _end(session, trial, "cancelled", f"the sweep is {trial.sweep_state}", charged=charged)
    if charged >= trial.max_attempts:
        return _end(session, trial, "failed", f"{_used_up(charged, trial)}: {body.reason}", charged=charged)
    attempts.end(session, trial_id, attempt, "released", body.reason)
    row = session.connection().execute(sql.REQUEUE, {"of_trial": trial_id, "charged": charged}).one()
    data = {"number": trial.number, "attempt": attempt, "reason": body.reason, "charged": body.charge}
    _leave(session, trial, "queued", NewEvent("trial.queued", trial_id, data))
    return trials.to_schema(row)


def expire(session: Session) -> int:
    """End the trials whose lease lapsed and that no claim will take again; return how many.

    Those are trials whose attempts are used up (they fail) and trials of sweeps that have ended (they are cancelled).
    """
    sweeps = session.connection().scalars(sql.LAPSED_SWEEPS, {"most": _EXPIRE_BATCH}).all()
    row_locks.take_sweeps(session, sweeps)
    return _expire(session, sweeps)


def cancel_open(session: Session, sweep_id: str, reason: str) -> int:
    """Cancel every queued and running trial of the sweep; return how many. Workers learn it when they next ask.

    From here on the sweep gets no more trials until the transaction ends.
    """
    row_locks.take_sweeps(session, [sweep_id])
    rows = session.connection().execute(sql.OPEN_IN_SWEEP, {"of_sweep": sweep_id}).all()
    for trial in rows:
        _end(session, trial, "cancelled", reason)
    return len(rows)


def reopen(session: Session, trial_ids: Sequence[str]) -> dict[str, int]:
    """Put trials that failed or were cancelled back into the queue; return their numbers.

    Their attempts stay on record and are charged no more; what was measured goes. The caller counts the trials and
    appends the events.
    """
    connection = session.connection()
    numbers: dict[str, int] = {}
    for trial_id in sorted(trial_ids):
        trial = connection.execute(sql.ENDED, {"of_trial": trial_id}).one()
        kept = worker_reports.own_figures(trial.metrics)
        connection.execute(sql.REOPEN, {"of_trial": trial_id, "all_metrics": kept})
        connection.execute(sql.DROP_METRICS, {"of_trial": trial_id})
        connection.execute(sql.DROP_MEASUREMENTS, {"of_trial": trial_id})
        numbers[trial_id] = trial.number
    return numbers


# --- claiming --------------------------------------------------------------------------------------------------------


def _begin_attempt(session: Session, trial: sql.Row, worker_id: str, lease_seconds: float) -> bool:
    """Write what belongs to a claim; False, and nothing is written, when the sweep may not run one more trial."""
    connection = session.connection()
    is_lapsed = trial.state == "running"
    enter = sql.ENTER_AGAIN if is_lapsed else sql.ENTER_FIRST
    newest = connection.scalar(enter, {"of_sweep": trial.sweep_id})
    if newest is None:
        return False
    if is_lapsed:
        attempts.end(session, trial.id, trial.attempt, "lost", _LAPSED)
    attempt = trial.attempt + 1
    taken = {
        "of_trial": trial.id,
        "of_worker": worker_id,
        "attempt_number": attempt,
        "charge": int(is_lapsed),
        "lease_seconds": lease_seconds,
    }
    connection.execute(sql.TAKE, taken)
    attempts.begin(session, trial.id, attempt, worker_id)
    data = {"number": trial.number, "attempt": attempt, "worker": worker_id}
    events.write(session, trial.sweep_id, newest, [NewEvent("trial.running", trial.id, data)])
    return True


def _key_results(session: Session, trial: sql.Row, targets: Sequence[Mapping[str, Any]]) -> None:
    """Let the trial be found by what its results will be: those of this worker's version, not of the sweep's first."""
    target = next(target for target in targets if target["key"] == trial.target_key)
    version = results_version_of(target)
    expected = results_version_of(trial.target)
    if trial.sampler == CONFIRMATION or (version == expected and trial.attempt == 0):
        return
    key = reuse_key(
        project=trial.project,
        configuration=trial.configuration,
        dataset_sha256=trial.dataset_sha256,
        target_key=trial.target_key,
        results_version=version,
    )
    session.connection().execute(sql.SET_REUSE_KEY, {"of_trial": trial.id, "its_key": key})


def _lease(trial: sql.Row, lease_seconds: float) -> lease_schemas.Lease:
    assert trial.target is not None, "a sweep with trials has a target"
    return lease_schemas.Lease(
        trial=trial.id,
        attempt=trial.attempt + 1,
        sweep=trial.sweep_id,
        number=trial.number,
        runtime=trial.target["runtime"],
        target_key=trial.target_key,
        configuration=trial.configuration,
        dataset=None if trial.dataset_id is None else _lease_dataset(trial),
        constraints=trial.constraints or [],
        lease_seconds=lease_seconds,
    )


def _lease_dataset(trial: sql.Row) -> lease_schemas.LeaseDataset:
    parts = trial.dataset_parts
    if trial.sampler != CONFIRMATION:
        parts = {name: part for name, part in parts.items() if name != "test"}
    return lease_schemas.LeaseDataset(
        id=trial.dataset_id,
        name=trial.dataset_name,
        task=trial.dataset_task,
        sha256=trial.dataset_sha256,
        facts=trial.dataset_facts,
        parts=parts,
    )


def _target_keys(targets: Sequence[Mapping[str, Any]] | None, worker_id: str) -> list[str]:
    if targets is None:
        raise NotFound(f"there is no worker {worker_id}: register again")
    return sql.keys_of(targets)


# --- holding ---------------------------------------------------------------------------------------------------------


def _renew(session: Session, trial_id: str, attempt: int, lease_seconds: float) -> sql.Row | None:
    """Lock the trial for the holder of its lease and renew that; None when the lease is lost."""
    connection = session.connection()
    fence = {"of_trial": trial_id, "attempt_number": attempt, "lease_seconds": lease_seconds}
    trial = connection.execute(sql.RENEW, fence).one_or_none()
    if trial is not None:
        at_end(session, sql.SEE_WORKER, trial.worker_id, {"of_worker": trial.worker_id})
    return trial


def _held(session: Session, trial_id: str, attempt: int) -> sql.Row | None:
    """Lock the trial for the holder of its lease; None when that is lost."""
    return session.connection().execute(sql.HELD, {"of_trial": trial_id, "attempt_number": attempt}).one_or_none()


def _action(session: Session, trial_id: str, attempt: int, held: sql.Row | None) -> Action:
    if held is None:
        trial = trials.get(session, trial_id)
        if trial.state == "cancelled" and trial.attempt == attempt:
            return "cancel"
        raise _lost(session, trial_id, attempt)
    state = session.connection().scalar(sql.SWEEP_STATE, {"of_sweep": held.sweep_id})
    return "continue" if state in sql.GOING_SWEEPS else "cancel"


def _lost(session: Session, trial_id: str, attempt: int) -> LeaseLost:
    trial = trials.get(session, trial_id)
    return LeaseLost(
        f"attempt {attempt} of trial {trial_id} does not run: the trial is {trial.state}, "
        f"its newest attempt is {trial.attempt}"
    )


def _store_report(session: Session, trial: sql.Row, body: lease_schemas.LeaseReport) -> None:
    worker_reports.check_progress(body.progress)
    worker_reports.check_losses(body.losses)
    connection, time = session.connection(), now(session)
    attempts.append_log(session, trial.id, trial.attempt, body.log)
    facts: dict[str, Any] = {"number": trial.number, "attempt": trial.attempt}
    new: list[NewEvent] = []
    phase, progress = trial.phase, trial.progress
    if body.phase is not None and body.phase != phase:
        attempts.enter_phase(session, trial.id, trial.attempt, body.phase, time)
        phase, progress = body.phase, None
        new.append(NewEvent("trial.phase", trial.id, facts | {"phase": phase}))
    if body.progress is not None:
        progress = body.progress
    told: dict[str, Any] = {}
    if body.losses:
        curves.store(session, trial.id, trial.attempt, body.losses, time)
        told["losses"] = body.losses[-1].model_dump(exclude_none=True)
    if body.losses or body.progress is not None:
        told |= {"phase": phase, "progress": progress}
        new.append(NewEvent("trial.report", trial.id, facts | told))
    if new:
        connection.execute(sql.REPORT, {"of_trial": trial.id, "new_phase": phase, "new_progress": progress})
        events.append_all(session, trial.sweep_id, new)


# --- lapsing ----------------------------------------------------------------------------------------------------------


def _expire_of_targets(session: Session, keys: Sequence[str], held: Held | None) -> None:
    """`expire` for who finds nothing to claim, of sweeps that are locked."""
    if held is None:
        given = {"most": _EXPIRE_BATCH, "target_keys": keys}
        _expire(session, session.connection().scalars(sql.LAPSED_SWEEPS_OF_TARGETS, given).all())
    elif held.sweeps:
        _expire(session, sorted(held.sweeps))


def _expire(session: Session, sweeps: Sequence[str]) -> int:
    if not sweeps:
        return 0
    rows = session.connection().execute(sql.LAPSED, {"most": _EXPIRE_BATCH, "sweeps": sweeps}).all()
    for trial in rows:
        charged = trial.charged_attempts + 1
        attempts.end(session, trial.id, trial.attempt, "lost", _LAPSED)
        if trial.sweep_state in sql.GOING_SWEEPS:
            _end(session, trial, "failed", f"{_used_up(charged, trial)}: {_LAPSED}", charged=charged)
        else:
            _end(session, trial, "cancelled", f"the sweep is {trial.sweep_state}", charged=charged)
    return len(rows)


# --- ending ----------------------------------------------------------------------------------------------------------


def _store_results(
    session: Session, trial: sql.Row, metrics: Mapping[str, float], measurements: Mapping[str, Any]
) -> None:
    if metrics:
        identity = {"trial_id": trial.id, "sweep_id": trial.sweep_id}
        for name, value in metrics.items():
            defer(session, sql.ADD_METRICS, identity | {"name": name, "value": float(value)})
    if measurements:
        identity = {"trial_id": trial.id, "attempt": trial.attempt}
        rows = [identity | {"name": name, "data": data} for name, data in measurements.items()]
        session.connection().execute(sql.ADD_MEASUREMENTS, rows)


def _end(
    session: Session,
    trial: sql.Row,
    state: str,
    reason: str | None,
    *,
    charged: int | None = None,
    findings: Mapping[str, Any] | None = None,
    finish_hash: str | None = None,
) -> lease_schemas.Trial:
    """End an open trial. `findings`: metrics, violations and feasible; left out, they stay as they are."""
    if trial.attempt:
        end_attempt = attempts.end_without_phases if trial.phase is None else attempts.end
        end_attempt(session, trial.id, trial.attempt, state, reason, finish_hash)
    known = findings or {"metrics": trial.metrics, "violations": trial.violations, "feasible": trial.feasible}
    ended = {
        "of_trial": trial.id,
        "new_state": state,
        "its_reason": reason,
        "charged": trial.charged_attempts if charged is None else charged,
        "all_metrics": known["metrics"],
        "its_violations": known["violations"],
        "is_feasible": known["feasible"],
    }
    row = session.connection().execute(sql.END, ended).one()
    data = {"number": trial.number, "state": state, "feasible": row.feasible, "reused": False}
    _leave(session, trial, state, NewEvent("trial.ended", trial.id, data))
    return trials.to_schema(row)


def _leave(session: Session, trial: sql.Row, state: str, event: NewEvent) -> None:
    """Count a trial that went from its state to another, and say so."""
    leaving = {
        "of_sweep": trial.sweep_id,
        "ran": int(trial.state == "running"),
        "old_state": trial.state,
        "new_state": state,
    }
    newest = session.connection().execute(sql.LEAVE, leaving).scalar_one()
    events.write(session, trial.sweep_id, newest, [event])


def _used_up(charged: int, trial: sql.Row) -> str:
    return f"{charged} of at most {trial.max_attempts} attempts were lost, the last one so"


def _digest(body: lease_schemas.LeaseFinish) -> str:
    canonical = json.dumps(body.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
