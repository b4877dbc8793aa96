"""The queue of trials: claimed by workers, cancelled, reopened, and ended where their leases lapse too often.

    queued ──claim──▶ running ──finish──▶ complete | infeasible | pruned | failed
       ▲                │ │ └──cancel──▶ cancelled
       └────release─────┘ └──a lapsed lease is claimed again: another attempt, and charged; too many: failed

Where a sweep that ended is extended, what was cancelled or had failed may be reopened: queued again. So is what a
pruner has stopped, where it is promoted.

Leases are written here, in `service.leases.holders` and in `service.leases.transitions`, and nowhere else. A lease is
fenced by the attempt's number. Time is the database's. Locks are taken sweep before trial, in the order of
`service.leases.row_locks`.

All functions work inside the caller's transaction and append the events that belong to what they do. What runs for
every trial is built once, in `service.leases.statements`: building a statement takes longer than running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.declarations.training import step_count
from service.common.notifications import QUEUE
from service.common.rungs import rung_steps
from service.common.states import TrialState
from service.database import counts
from service.database.json_columns import TrialRunning
from service.database.sessions import at_end, execute_deferred
from service.errors import NotFoundError
from service.events import events
from service.events.events import NewEvent
from service.leases import attempts, claimants, curves, holders, leased_sweeps, row_locks, transitions, worker_reports
from service.leases import schemas as lease_schemas
from service.leases import statements as sql
from service.leases.attempts import AttemptKey
from service.leases.claimants import Claimant
from service.leases.claiming import lapses
from service.leases.claiming import statements as claiming
from service.leases.holders import Finish, Finished
from service.leases.row_locks import Claims, FinishesAndClaims, Held

TOPIC = QUEUE
"""Announced when there may be something to claim."""

_EXPIRE_BATCH = 100
_LAPSED = "the lease lapsed without a heartbeat"


def claim(session: Session, worker_id: str, lease_seconds: float) -> lease_schemas.Lease | None:
    """`claim_several` of one; None when there is none."""
    return next(iter(claim_several(session, worker_id, lease_seconds, 1)), None)


def claim_several(session: Session, worker_id: str, lease_seconds: float, at_most: int) -> list[lease_schemas.Lease]:
    """Give claimable trials of the worker's targets to it, as many as its free slots and `at_most` allow.

    Claimable is what is queued in an active sweep below its parallel limit and its project's quota, or running with a
    lapsed lease, where the sweep's target is of the worker's `RESULTS_VERSION`. What has lapsed comes first. Then
    sweeps take turns: by priority, of equal priority the one that runs the fewest trials, of these the oldest.
    A claim that shares its transaction may come too late for what it saw, and so may one beside another of the same
    worker: it is given nothing, though there may be more.
    """
    need = Claims(worker_id, at_most)
    held = row_locks.take(session, need)
    claimant = claimants.find(session.connection(), worker_id)
    if claimant is None:
        raise _unknown(worker_id)
    claim = _Claim(session, worker_id, claimant, lease_seconds, held)
    at_end(session, sql.SEE_WORKER, worker_id, {"of_worker": worker_id})
    while True:
        leases = claim.take(at_most)
        if leases or claim.held is None:
            break
        more = row_locks.take_more(session, need, claim.held)
        if more is None:
            break
        claim.held = more
    if not leases:
        _check_works(session, worker_id)
        if claim.looks_for_lapsed:
            _expire_of_targets(session, claimant.target_keys, claim.held)
    claim.end(leases)
    return leases


@dataclass(frozen=True, slots=True)
class FinishThatClaims(Finish):
    """A finish after which the worker wants its next trial."""

    lease_seconds: float


def finish_and_claim(session: Session, finishes: Sequence[FinishThatClaims]) -> list[lease_schemas.FinishedTrial]:
    """End the attempts as `holders.finish` does, and give each worker its next trial, where there is one now.

    The same finish again answers the same lease, while the worker holds it.
    """
    once = {each.trial: each for each in finishes}
    if len(once) < len(finishes):
        # A finish that was sent again before the first was answered.
        return [answer for each in finishes for answer in finish_and_claim(session, [each])]
    held = row_locks.take(session, *(FinishesAndClaims(each.trial) for each in finishes))
    finished = holders.end_attempts(session, finishes)
    return [_next_too(session, each, ended, held) for each, ended in zip(finishes, finished, strict=True)]


def _next_too(
    session: Session, finish: FinishThatClaims, finished: Finished, held: Held | None
) -> lease_schemas.FinishedTrial:
    """The answer to a finish, with what its worker claims."""
    seconds = finish.lease_seconds
    if finished.worker is None:
        lease = _claimed_after(session, finished.trial.worker, finish.trial, finish.attempt, seconds)
        return lease_schemas.FinishedTrial(**finished.trial.__dict__, lease=lease)
    claimant = claimants.find(session.connection(), finished.worker)
    assert claimant is not None, "an attempt has a worker"
    claimed_by = AttemptKey(finish.trial, finish.attempt)
    claim = _Claim(session, finished.worker, claimant, seconds, held, claimed_by)
    leases = claim.take(1)
    claim.end(leases)
    at_end(session, sql.SEE_WORKER, finished.worker, {"of_worker": finished.worker})
    return lease_schemas.FinishedTrial(**finished.trial.__dict__, lease=next(iter(leases), None))


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
    transitions.end(session, [transitions.Ending(trial, TrialState.CANCELLED, reason) for trial in rows])
    return len(rows)


def reopen(session: Session, trial_ids: Sequence[str]) -> dict[str, int]:
    """Put trials that failed, were cancelled or pruned back into the queue; return their numbers.

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


class _Claim:
    """What one worker claims in one transaction."""

    def __init__(
        self,
        session: Session,
        worker_id: str,
        claimant: Claimant,
        lease_seconds: float,
        held: Held | None,
        claimed_by: AttemptKey | None = None,
    ) -> None:
        """`claimed_by`: the attempt whose finish claims."""
        self._session = session
        self._worker_id = worker_id
        self._claimant = claimant
        self._lease_seconds = lease_seconds
        self._claimed_by = claimed_by
        self.held = held
        """What is locked; None where the database needs no locks."""
        self.looks_for_lapsed = (
            lapses.are_due(session.connection(), claimant) if held is None else claimant in held.looks_for_lapsed
        )
        self._found_lapsed = False

    def take(self, at_most: int) -> list[lease_schemas.Lease]:
        """Take trials of the sweeps that are locked; none where another transaction claims for the worker, or the
        worker is unknown or has signed off."""
        leases: list[lease_schemas.Lease] = []
        full: list[str] = []
        if self.held is not None and self._worker_id in self.held.busy:
            return leases
        while len(leases) < at_most and (trial := self._find(full)) is not None:
            self._found_lapsed |= trial.state == TrialState.RUNNING
            if _begin_attempt(self._session, trial, self._worker_id, self._lease_seconds, self._claimed_by):
                leases.append(_lease(self._session, trial, trial.attempt + 1, self._lease_seconds))
            else:
                # Another claim filled the sweep between our look at it and our lock of it.
                full.append(trial.sweep_id)
        return leases

    def end(self, leases: Sequence[lease_schemas.Lease]) -> None:
        """Keep that nothing had lapsed, if this claim could see that."""
        if not self.looks_for_lapsed or self._found_lapsed:
            return
        connection = self._session.connection()
        if leases or _has_free_slot(connection, self._worker_id):
            lapses.found_none(connection, self._claimant)

    def _find(self, full: Sequence[str]) -> sql.Row | None:
        wanted = self._claimant.parameters() | {
            "full": full,
            "of_worker": self._worker_id,
            "lapsed_too": int(self.looks_for_lapsed),
        }
        connection = self._session.connection()
        if self.held is None:
            return connection.execute(claiming.FIND, wanted).one_or_none()
        return connection.execute(claiming.FIND_IN_SWEEPS, wanted | {"sweeps": sorted(self.held.sweeps)}).one_or_none()


def _claimed_after(
    session: Session, worker_id: str | None, trial_id: str, attempt: int, lease_seconds: float
) -> lease_schemas.Lease | None:
    """The lease that the worker was given when it finished the attempt, while it holds it."""
    execute_deferred(session)
    given = {"of_worker": worker_id, "of_trial": trial_id, "attempt_number": attempt}
    trial = session.connection().execute(sql.CLAIMED_AFTER, given).one_or_none()
    return None if trial is None else _lease(session, trial, trial.attempt, lease_seconds)


def _begin_attempt(
    session: Session, trial: sql.Row, worker_id: str, lease_seconds: float, claimed_by: AttemptKey | None
) -> bool:
    """Write what belongs to a claim; False, and nothing is written, when the sweep may not run one more trial."""
    connection = session.connection()
    is_lapsed = trial.state == TrialState.RUNNING
    entering = {"of_sweep": trial.sweep_id}
    if not is_lapsed:
        entering["old_state"] = counts.key(TrialState.QUEUED, trial.replicate_of)
        entering["new_state"] = counts.key(TrialState.RUNNING, trial.replicate_of)
    newest = connection.scalar(sql.ENTER_AGAIN if is_lapsed else sql.ENTER_FIRST, entering)
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
    attempts.begin(session, trial.id, attempt, worker_id, claimed_by=claimed_by)
    if trial.promoted:
        curves.continue_stopped(session, trial.id, attempt)
    data: TrialRunning = {"number": trial.number, "attempt": attempt, "worker": worker_id}
    events.write(session, trial.sweep_id, newest, [NewEvent("trial.running", trial.id, data)])
    return True


def _lease(session: Session, trial: sql.Row, attempt: int, lease_seconds: float) -> lease_schemas.Lease:
    sweep = leased_sweeps.get(session, trial.sweep_id)
    is_replicate = trial.replicate_of is not None
    stopped = curves.stopped_training(session, trial.id) if trial.promoted else None
    return lease_schemas.Lease(
        trial=trial.id,
        attempt=attempt,
        sweep=trial.sweep_id,
        number=trial.number,
        runtime=sweep.runtime,
        target_key=trial.target_key,
        configuration=trial.configuration,
        dataset=sweep.dataset,
        # What a configuration takes of the device is known: a replicate is judged by what it learns alone.
        constraints=[] if is_replicate else list(sweep.constraints),
        hardware_first=sweep.hardware_first and not is_replicate and trial.predicted is None,
        measure=not is_replicate,
        metrics_in_use=sweep.metrics_of_objectives if is_replicate else sweep.metrics_in_use,
        rungs=rung_steps(step_count(trial.configuration["training"])) if sweep.prunes and not is_replicate else [],
        training_state=None if stopped is None else lease_schemas.TrainingState(sha256=stopped.sha256),
        lease_seconds=lease_seconds,
    )


def _has_free_slot(connection: sa.Connection, worker_id: str) -> bool:
    return connection.scalar(claiming.HAS_FREE_SLOT, {"of_worker": worker_id}) is not None


def _check_works(session: Session, worker_id: str) -> None:
    """Raise NotFoundError where the worker has signed off."""
    if session.connection().scalar(sql.WORKS, {"of_worker": worker_id}) is None:
        raise _unknown(worker_id)


def _unknown(worker_id: str) -> NotFoundError:
    return NotFoundError(f"there is no worker {worker_id}: register again")


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
