"""The statements that read and write leases, built once. Parameters: `of_trial`, `attempt_number`, `of_sweep`, ..."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from service.common.states import GOING_SWEEPS, OPEN_TRIALS, SweepState, TrialState
from service.database import sql_functions
from service.database.counts import moved
from service.database.models import Artifact, Attempt, Measurement, Report, Sweep, Trial, TrialMetric, Worker
from service.database.sessions import now_sql

_TRIALS, _SWEEPS, _WORKERS = (cast("sa.Table", model.__table__) for model in (Trial, Sweep, Worker))
_text, _integer, _seconds = sql_functions.text, sql_functions.integer, sql_functions.seconds

IS_WORKING = sa.and_(_WORKERS.c.id == _text("of_worker"), _WORKERS.c.signed_off_at.is_(None))
"""One that has signed off is unknown: it registers again if it still works."""
WORKS = sa.select(_WORKERS.c.id).where(IS_WORKING)
SEE_WORKER = sa.update(_WORKERS).where(IS_WORKING).values(last_seen_at=now_sql())
"""The worker lives."""

# --- claiming ---------------------------------------------------------------------------------------------------------

MAY_FAIL_ONCE_MORE = (
    sa.func.coalesce(_SWEEPS.c.counts[TrialState.FAILED].as_integer(), 0) < _SWEEPS.c.budget["failures"].as_integer()
)
"""A sweep whose failures are used up ends when the scheduler next looks: until then it begins nothing."""
IS_OPEN = sa.text("trials.state IN ('queued', 'running')")
"""Word for word the condition of the index: finished trials cost nothing."""
LEASE = (
    _TRIALS.c.id,
    _TRIALS.c.state,
    _TRIALS.c.attempt,
    _TRIALS.c.sweep_id,
    _TRIALS.c.number,
    _TRIALS.c.target_key,
    _TRIALS.c.configuration,
    _TRIALS.c.replicate_of,
    _TRIALS.c.promoted,
    _TRIALS.c.predicted,
)
"""What a lease says of its trial."""
_ATTEMPTS = cast("sa.Table", Attempt.__table__)
CLAIMED_AFTER = (
    sa.select(*LEASE)
    .join(_ATTEMPTS, sa.and_(_ATTEMPTS.c.trial_id == _TRIALS.c.id, _ATTEMPTS.c.attempt == _TRIALS.c.attempt))
    .where(
        sa.text("trials.state = 'running'"),
        _TRIALS.c.worker_id == _text("of_worker"),
        _TRIALS.c.lease_expires_at >= now_sql(),
        _ATTEMPTS.c.after_trial_id == _text("of_trial"),
        _ATTEMPTS.c.after_attempt == _integer("attempt_number"),
    )
)
"""The lease that a worker was given with the finish of an attempt, while it holds it."""
TAKE = (
    sa.update(_TRIALS)
    .where(_TRIALS.c.id == _text("of_trial"))
    .values(
        state=TrialState.RUNNING,
        attempt=_integer("attempt_number"),
        charged_attempts=_TRIALS.c.charged_attempts + _integer("charge"),
        worker_id=_text("of_worker"),
        lease_expires_at=now_sql() + _seconds("lease_seconds"),
        started_at=sa.func.coalesce(_TRIALS.c.started_at, now_sql()),
        phase=None,
        progress=sa.null(),
    )
)
_ENTER = (
    sa.update(_SWEEPS)
    .where(_SWEEPS.c.id == _text("of_sweep"), _SWEEPS.c.state == SweepState.ACTIVE)
    .values(
        event_counter=_SWEEPS.c.event_counter + _integer("trials"),
        started_at=sa.func.coalesce(_SWEEPS.c.started_at, now_sql()),
    )
    .returning(_SWEEPS.c.event_counter)
)
ENTER_FIRST = _ENTER.where(
    _SWEEPS.c.running_count + _integer("trials") <= _SWEEPS.c.effective_parallel, MAY_FAIL_ONCE_MORE
).values(
    running_count=_SWEEPS.c.running_count + _integer("trials"),
    counts=moved(_SWEEPS.c.counts, _text("old_state"), _text("new_state"), _integer("trials")),
)
"""So many more trials of the sweep run, if there is room."""
ENTER_AGAIN = _ENTER
"""Trials that count as running get another attempt."""

# --- holding ----------------------------------------------------------------------------------------------------------

_IS_HELD = sa.and_(
    _TRIALS.c.id == _text("of_trial"),
    _TRIALS.c.attempt == _integer("attempt_number"),
    _TRIALS.c.state == TrialState.RUNNING,
)
IS_HELD_NOW = sa.select(_TRIALS.c.id).where(_IS_HELD, _TRIALS.c.lease_expires_at >= now_sql())
RENEW = (
    sa.update(_TRIALS)
    .where(_IS_HELD)
    .values(lease_expires_at=now_sql() + _seconds("lease_seconds"))
    .returning(
        _TRIALS.c.id,
        _TRIALS.c.sweep_id,
        _TRIALS.c.number,
        _TRIALS.c.attempt,
        _TRIALS.c.worker_id,
        _TRIALS.c.phase,
        _TRIALS.c.progress,
    )
)
SWEEP_STATE = sa.select(_SWEEPS.c.state).where(_SWEEPS.c.id == _text("of_sweep"))
REPORT = (
    sa.update(_TRIALS)
    .where(_TRIALS.c.id == _text("of_trial"))
    .values(
        phase=_text("new_phase"),
        progress=sa.bindparam("new_progress", type_=_TRIALS.c.progress.type),
    )
)

# --- ending -----------------------------------------------------------------------------------------------------------

_SHOWN = [column for column in _TRIALS.c if column.name not in ("configuration", "project", "point_hash", "reuse_key")]
"""What a trial shows of its row: the configuration is long, and nobody looks at it here."""
_OPEN = sa.select(*_SHOWN, _SWEEPS.c.state.label("sweep_state"), now_sql().label("time")).join(
    _SWEEPS, _SWEEPS.c.id == _TRIALS.c.sweep_id
)
CONFIGURATION = sa.select(_TRIALS.c.configuration).where(_TRIALS.c.id == _text("of_trial"))
HELD = (
    _OPEN.where(sql_functions.is_one_of(_TRIALS.c.id, "of_trials"), sa.text("trials.state = 'running'"))
    .order_by(_TRIALS.c.id)
    .with_for_update(of=_TRIALS, key_share=True)
)
"""Trials that run, whichever of their attempts."""
OPEN_IN_SWEEP = (
    _OPEN.where(_TRIALS.c.sweep_id == _text("of_sweep"), _TRIALS.c.state.in_(OPEN_TRIALS))
    .order_by(_TRIALS.c.id)
    .with_for_update(of=_TRIALS, key_share=True)
)
_HAS_LAPSED = sa.and_(
    IS_OPEN,
    _TRIALS.c.state == TrialState.RUNNING,
    _TRIALS.c.lease_expires_at < now_sql(),
    sa.or_(_TRIALS.c.charged_attempts + 1 >= _TRIALS.c.max_attempts, _SWEEPS.c.state.not_in(GOING_SWEEPS)),
)
LAPSED_SWEEPS = (
    sa.select(_TRIALS.c.sweep_id)
    .join(_SWEEPS, _SWEEPS.c.id == _TRIALS.c.sweep_id)
    .where(_HAS_LAPSED)
    .distinct()
    .limit(_integer("most"))
)
"""The sweeps of trials whose lease lapsed and that no claim will take again."""
LAPSED_SWEEPS_OF_TARGETS = LAPSED_SWEEPS.where(sql_functions.is_one_of(_TRIALS.c.target_key, "target_keys"))
LAPSED = (
    _OPEN.where(_HAS_LAPSED, sql_functions.is_one_of(_TRIALS.c.sweep_id, "sweeps"))
    .order_by(_TRIALS.c.sweep_id, _TRIALS.c.id)
    .limit(_integer("most"))
    .with_for_update(of=_TRIALS, skip_locked=True, key_share=True)
)
"""Locks such trials, of sweeps that are locked."""
END = (
    sa.update(_TRIALS)
    .where(_TRIALS.c.id == _text("of_trial"))
    .values(
        state=_text("new_state"),
        reason=_text("its_reason"),
        charged_attempts=_integer("charged"),
        metrics=sa.bindparam("all_metrics", type_=_TRIALS.c.metrics.type),
        violations=sa.bindparam("its_violations", type_=_TRIALS.c.violations.type),
        feasible=sa.bindparam("is_feasible", type_=sa.Boolean),
        noise=sa.bindparam("its_noise", type_=_TRIALS.c.noise.type),
        phase=None,
        progress=sa.null(),
        lease_expires_at=None,
        ended_at=_seconds("time"),
    )
)
REQUEUE = (
    sa.update(_TRIALS)
    .where(_TRIALS.c.id == _text("of_trial"))
    .values(
        state=TrialState.QUEUED,
        charged_attempts=_integer("charged"),
        worker_id=None,
        phase=None,
        progress=sa.null(),
        lease_expires_at=None,
    )
    .returning(*_SHOWN)
)
_TRIED_AGAIN = (TrialState.FAILED, TrialState.CANCELLED, TrialState.PRUNED)
ENDED = (
    sa.select(_TRIALS.c.number, _TRIALS.c.metrics)
    .where(_TRIALS.c.id == _text("of_trial"), _TRIALS.c.state.in_(_TRIED_AGAIN))
    .with_for_update(key_share=True)
)
REOPEN = (
    sa.update(_TRIALS)
    .where(_TRIALS.c.id == _text("of_trial"))
    .values(
        state=TrialState.QUEUED,
        charged_attempts=0,
        worker_id=None,
        lease_expires_at=None,
        metrics=sa.bindparam("all_metrics", type_=_TRIALS.c.metrics.type),
        feasible=None,
        violations=sa.null(),
        noise=sa.null(),
        reason=None,
        started_at=None,
        ended_at=None,
    )
)
LEAVE = (
    sa.update(_SWEEPS)
    .where(_SWEEPS.c.id == _text("of_sweep"))
    .values(
        event_counter=_SWEEPS.c.event_counter + _integer("trials"),
        running_count=_SWEEPS.c.running_count - _integer("ran"),
        device_seconds=_SWEEPS.c.device_seconds + _seconds("took"),
        counts=moved(_SWEEPS.c.counts, _text("old_state"), _text("new_state"), _integer("trials")),
    )
    .returning(_SWEEPS.c.event_counter)
)
"""So many trials of the sweep went from one state to another."""
_METRICS, _MEASUREMENTS = (cast("sa.Table", model.__table__) for model in (TrialMetric, Measurement))
DROP_METRICS = sa.delete(_METRICS).where(_METRICS.c.trial_id == _text("of_trial"))
DROP_MEASUREMENTS = sa.delete(_MEASUREMENTS).where(_MEASUREMENTS.c.trial_id == _text("of_trial"))
ADD_METRICS = sa.insert(cast("sa.Table", TrialMetric.__table__))
ADD_MEASUREMENTS = sa.insert(cast("sa.Table", Measurement.__table__))

# --- trainings that were stopped --------------------------------------------------------------------------------------

TRAINING_STATE = "training_state.pt"
"""The artifact that is the state of a training that a pruner has stopped."""
_ARTIFACTS = cast("sa.Table", Artifact.__table__)
STOPPED_TRAINING = sa.select(_ARTIFACTS.c.attempt, _ARTIFACTS.c.sha256).where(
    _ARTIFACTS.c.trial_id == _text("of_trial"), _ARTIFACTS.c.name == TRAINING_STATE
)
_REPORTS = cast("sa.Table", Report.__table__)
CONTINUE_CURVE = sa.insert(_REPORTS).from_select(
    ["trial_id", "attempt", "step", "values", "created_at"],
    sa.select(
        _REPORTS.c.trial_id,
        _integer("attempt_number").label("attempt"),
        _REPORTS.c.step,
        _REPORTS.c["values"],
        _REPORTS.c.created_at,
    ).where(_REPORTS.c.trial_id == _text("of_trial"), _REPORTS.c.attempt == _integer("stopped_attempt")),
)
"""The curve of an attempt that goes on from the state of a stopped one begins with that one's."""

Row = sa.Row[*tuple[Any, ...]]
