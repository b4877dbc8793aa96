"""The queue of trials: claimed by workers, cancelled, reopened, and ended where their leases lapse too often.

    queued ──claim──▶ running ──finish──▶ complete | infeasible | pruned | failed
       ▲                │ │ └──cancel──▶ cancelled
       └────release─────┘ └──a lapsed lease is claimed again: another attempt, and charged; too many: failed

Where a sweep that ended is extended, what was cancelled or had failed may be reopened: queued again.

Leases are written here, in `service.leases.holders` and in `service.leases.transitions`, and nowhere else. A lease is
fenced by the attempt's number. Time is the database's. Locks are taken sweep before trial, in the order of
`service.leases.row_locks`.

All functions work inside the caller's transaction and append the events that belong to what they do. What runs for
every trial is built once, in `service.leases.statements`: building a statement takes longer than running it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from service.common.notifications import QUEUE
from service.common.states import SweepKind, TrialState
from service.database.sessions import at_end
from service.errors import NotFoundError
from service.events import events
from service.events.events import NewEvent
from service.leases import attempts, row_locks, transitions, worker_reports
from service.leases import schemas as lease_schemas
from service.leases import statements as sql
from service.leases.row_locks import Claims, Held

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

    Claimable is what is queued in an active sweep below its parallel limit, or running with a lapsed lease, where the
    sweep's target is of the worker's `RESULTS_VERSION`. A claim that shares its transaction may also come too late for
    what it saw (None): `has_claimable` says whether there is more.
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
            return _lease(trial, lease_seconds)
        # Another claim filled the sweep between our look at it and our lock of it.
        full.append(trial.sweep_id)


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
        transitions.end(session, trial, TrialState.CANCELLED, reason)
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
    is_lapsed = trial.state == TrialState.RUNNING
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
    splits = trial.dataset_splits
    if SweepKind.of(trial.sampler) is SweepKind.SEARCH:
        splits = {name: split for name, split in splits.items() if name != "test"}
    return lease_schemas.LeaseDataset(
        id=trial.dataset_id,
        name=trial.dataset_name,
        task=trial.dataset_task,
        sha256=trial.dataset_sha256,
        facts=trial.dataset_facts,
        parts=splits,
    )


def _target_keys(targets: Sequence[Mapping[str, Any]] | None, worker_id: str) -> list[str]:
    if targets is None:
        raise NotFoundError(f"there is no worker {worker_id}: register again")
    return sql.keys_of(targets)


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
        transitions.give_up(session, trial, charged, _LAPSED)
    return len(rows)
