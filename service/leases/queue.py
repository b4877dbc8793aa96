"""The queue of trials: claimed by workers, cancelled, reopened, and ended if their leases lapse too often.

    queued ──claim──▶ running ──finish──▶ complete | infeasible | pruned | failed
       ▲                │ │ └──cancel──▶ cancelled
       └────release─────┘ └──a lapsed lease is claimed again: another attempt, and charged; too many: failed

If a sweep that ended is extended, what was cancelled or had failed may be reopened: queued again. So is what a
pruner has stopped, if it is promoted.

Leases are written here, in `service.leases.holders` and in `service.leases.transitions`, and nowhere else. A lease is
fenced by the attempt's number. Time is the database's. Locks are taken sweep before trial, in the order of
`service.leases.row_locks`.

All functions work inside the caller's transaction and append the events that belong to what they do. What runs for
every trial is built once, in `service.leases.statements`: building a statement takes longer than running it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.orm import Session

from layers.declarations.training import step_count
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
from service.leases.claiming import finding, lapses
from service.leases.holders import Finish, Finished
from service.leases.row_locks import Claims, FinishesAndClaims, Held

_EXPIRE_BATCH = 100
_LAPSED = "the lease lapsed without a heartbeat"


def answer_claim(
    session: Session, request: lease_schemas.LeaseRequest, lease_seconds: float
) -> lease_schemas.Lease | lease_schemas.Leases | None:
    """`claim`, or `claim_several` if the request says `at_most`; None when there is none."""
    if request.at_most is None:
        return claim(session, request.worker, lease_seconds)
    leases = claim_several(session, request.worker, lease_seconds, request.at_most)
    return lease_schemas.Leases(leases=leases) if leases else None


def claim(session: Session, worker_id: str, lease_seconds: float) -> lease_schemas.Lease | None:
    """`claim_several` of one; None when there is none."""
    return next(iter(claim_several(session, worker_id, lease_seconds, 1)), None)


def claim_several(session: Session, worker_id: str, lease_seconds: float, at_most: int) -> list[lease_schemas.Lease]:
    """Give claimable trials of the worker's targets to it, as many as its free slots and `at_most` allow.

    Claimable is what is queued in an active sweep below its parallel limit and its project's quota, or running with a
    lapsed lease, if the sweep's target is of the worker's `RESULTS_VERSION`. What has lapsed comes first. Then
    sweeps take turns: by priority, of equal priority the one that runs the fewest trials, of these the oldest.
    A claim that shares its transaction may come too late for what it saw, and so may one beside another of the same
    worker: it is given nothing, though there may be more.
    """
    need = Claims(worker_id, at_most)
    held = row_locks.take(session, need)
    claimant = claimants.find(session.connection(), worker_id)
    if claimant is None:
        raise _unknown(worker_id)
    claims = _Claims(session, [_Claim(worker_id, claimant, at_most)], lease_seconds, held)
    at_end(session, sql.SEE_WORKER, worker_id, {"of_worker": worker_id})
    while True:
        (leases,) = claims.take()
        if leases or claims.held is None:
            break
        more = row_locks.take_more(session, need, claims.held)
        if more is None:
            break
        claims.held = more
    if not leases:
        _check_works(session, worker_id)
        if claimant in claims.look_for_lapsed:
            _expire_of_targets(session, claimant.target_keys, claims.held)
    claims.end()
    return leases


@dataclass(frozen=True, slots=True)
class FinishThatClaims(Finish):
    """A finish after which the worker wants its next trial."""

    lease_seconds: float


def finish_and_claim(session: Session, finishes: Sequence[FinishThatClaims]) -> list[lease_schemas.FinishedTrial]:
    """End the attempts as `holders.finish` does, and give each worker its next trial, if there is one now.

    The same finish again answers the same lease, while the worker holds it.
    """
    once = {each.trial: each for each in finishes}
    if len(once) < len(finishes):
        # A finish that was sent again before the first was answered.
        return [answer for each in finishes for answer in finish_and_claim(session, [each])]
    held = row_locks.take(session, *(FinishesAndClaims(each.trial) for each in finishes))
    finished = holders.end_attempts(session, finishes)
    claims = _Claims(session, _claims_of(session, finishes, finished), finishes[0].lease_seconds, held)
    leases = iter(claims.take())
    claims.end()
    answers: list[lease_schemas.FinishedTrial] = []
    for finish, ended in zip(finishes, finished, strict=True):
        if ended.worker is not None:
            at_end(session, sql.SEE_WORKER, ended.worker, {"of_worker": ended.worker})
            lease = next(iter(next(leases)), None)
        else:
            lease = _claimed_after(session, ended.trial.worker, finish)
        answers.append(lease_schemas.FinishedTrial(**ended.trial.__dict__, lease=lease))
    return answers


def _claims_of(session: Session, finishes: Sequence[FinishThatClaims], finished: Sequence[Finished]) -> list[_Claim]:
    """What the workers claim whose attempts have ended now."""
    claims: list[_Claim] = []
    for finish, ended in zip(finishes, finished, strict=True):
        if ended.worker is not None:
            claimant = claimants.find(session.connection(), ended.worker)
            assert claimant is not None, "an attempt has a worker"
            claims.append(_Claim(ended.worker, claimant, 1, AttemptKey(finish.trial, finish.attempt)))
    return claims


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


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one worker claims."""

    worker: str
    claimant: Claimant
    at_most: int
    claimed_by: AttemptKey | None = None
    """The attempt whose finish claims."""


class _Claims:
    """What workers claim in one transaction."""

    def __init__(self, session: Session, claims: Sequence[_Claim], lease_seconds: float, held: Held | None) -> None:
        self._session = session
        self._connection = session.connection()
        self._claims = claims
        self._lease_seconds = lease_seconds
        self.held = held
        """What is locked; None if the database needs no locks."""
        alike = dict.fromkeys(claim.claimant for claim in claims)
        self.look_for_lapsed = [
            each
            for each in alike
            if (lapses.are_due(self._connection, each) if held is None else each in held.looks_for_lapsed)
        ]
        """Such workers are given lapsed leases, if there are any."""
        self._alike = list(alike)
        self._found_lapsed = set[Claimant]()
        self._had_room = set[Claimant]()

    def take(self) -> list[list[lease_schemas.Lease]]:
        """Take trials of the sweeps that are locked, for each claim; none if another transaction claims for its
        worker, or that is unknown or has signed off."""
        given: list[list[lease_schemas.Lease]] = [[] for _ in self._claims]
        if not given:
            return given
        free = finding.free_slots(self._connection, {claim.worker for claim in self._claims})
        for claimant in self._alike:
            while wanted := self._wanted(claimant, free, given):
                self._had_room.add(claimant)
                begun = self._begin_next(claimant, wanted)
                for position, lease in begun:
                    given[position].append(lease)
                    free[self._claims[position].worker] -= 1
                if not begun:
                    break
        return given

    def end(self) -> None:
        """Keep that nothing had lapsed, for those claims that could see that."""
        for claimant in self.look_for_lapsed:
            if claimant in self._had_room and claimant not in self._found_lapsed:
                lapses.note_none_lapsed(self._connection, claimant)

    def _wanted(
        self, claimant: Claimant, free: Mapping[str, int], given: Sequence[Sequence[lease_schemas.Lease]]
    ) -> list[int]:
        """The claims of such workers that want another trial, each as often as it wants one."""
        busy = frozenset[str]() if self.held is None else self.held.busy
        left = {worker: slots for worker, slots in free.items() if worker not in busy}
        wanted: list[int] = []
        for position, claim in enumerate(self._claims):
            if claim.claimant == claimant and claim.worker in left:
                more = min(claim.at_most - len(given[position]), left[claim.worker])
                wanted += [position] * more
                left[claim.worker] -= more
        return wanted

    def _begin_next(self, claimant: Claimant, wanted: Sequence[int]) -> list[tuple[int, lease_schemas.Lease]]:
        """Give these claims the next trials; return what each got."""
        trials = finding.next_trials(
            self._connection,
            claimant,
            len(wanted),
            lapsed_too=claimant in self.look_for_lapsed,
            sweeps=None if self.held is None else self.held.sweeps,
        )
        if any(trial.state == TrialState.RUNNING for trial in trials):
            self._found_lapsed.add(claimant)
        taken = [
            _Taken(trial, self._claims[position], position) for position, trial in zip(wanted, trials, strict=False)
        ]
        return [
            (each.position, _lease(self._session, each.trial, each.attempt, self._lease_seconds))
            for each in _begin_attempts(self._session, taken, self._lease_seconds)
        ]


class _Taken(NamedTuple):
    """A trial that is given to a claim."""

    trial: sql.Row
    claim: _Claim
    position: int
    """Of the claim."""

    @property
    def attempt(self) -> int:
        return self.trial.attempt + 1

    @property
    def has_lapsed(self) -> bool:
        return self.trial.state == TrialState.RUNNING


def _claimed_after(session: Session, worker_id: str | None, finish: FinishThatClaims) -> lease_schemas.Lease | None:
    """The lease that the worker was given when it finished the attempt, while it holds it."""
    execute_deferred(session)
    given = {"of_worker": worker_id, "of_trial": finish.trial, "attempt_number": finish.attempt}
    trial = session.connection().execute(sql.CLAIMED_AFTER, given).one_or_none()
    return None if trial is None else _lease(session, trial, trial.attempt, finish.lease_seconds)


def _begin_attempts(session: Session, taken: Sequence[_Taken], lease_seconds: float) -> list[_Taken]:
    """Write what belongs to claims; return those whose sweeps may run them: of the others nothing is written."""
    alike: dict[tuple[str, bool, bool], list[_Taken]] = {}
    for each in taken:
        kind = each.trial.sweep_id, each.has_lapsed, each.trial.replicate_of is None
        alike.setdefault(kind, []).append(each)
    entered = set[str]()
    for of_kind in alike.values():
        newest = _enter(session, of_kind)
        if newest is not None:
            entered |= {each.trial.id for each in of_kind}
            events.write(session, of_kind[0].trial.sweep_id, newest, [_running(each) for each in of_kind])
    begun = [each for each in taken if each.trial.id in entered]
    if not begun:
        return begun
    rows = [
        {
            "of_trial": each.trial.id,
            "of_worker": each.claim.worker,
            "attempt_number": each.attempt,
            "charge": int(each.has_lapsed),
            "lease_seconds": lease_seconds,
        }
        for each in begun
    ]
    session.connection().execute(sql.TAKE, rows)
    for each in begun:
        trial = each.trial
        if each.has_lapsed:
            attempts.end(session, trial.id, trial.attempt, "lost", _LAPSED)
        attempts.begin(session, trial.id, each.attempt, each.claim.worker, claimed_by=each.claim.claimed_by)
        if trial.promoted:
            curves.continue_stopped(session, trial.id, each.attempt)
    return begun


def _enter(session: Session, taken: Sequence[_Taken]) -> int | None:
    """Count alike trials as running, and take the sequences of their events; return the last, or None if the sweep
    may not run so many more."""
    trial = taken[0].trial
    entering: dict[str, object] = {"of_sweep": trial.sweep_id, "trials": len(taken)}
    if taken[0].has_lapsed:
        return session.connection().scalar(sql.ENTER_AGAIN, entering)
    entering["old_state"] = counts.key(TrialState.QUEUED, trial.replicate_of)
    entering["new_state"] = counts.key(TrialState.RUNNING, trial.replicate_of)
    return session.connection().scalar(sql.ENTER_FIRST, entering)


def _running(taken: _Taken) -> NewEvent:
    data: TrialRunning = {"number": taken.trial.number, "attempt": taken.attempt, "worker": taken.claim.worker}
    return NewEvent("trial.running", taken.trial.id, data)


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


def _check_works(session: Session, worker_id: str) -> None:
    """Raise NotFoundError if the worker has signed off."""
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
