"""What the holder of a lease may do: renew it, report, finish the attempt, or give the trial back.

Every write matches the trial, the attempt and the state `running`; one that matches nothing has lost its lease.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layersweep.json_values import JsonObject
from service.common.metrics import WAIT_SECONDS
from service.common.noise import StoredFigure
from service.common.states import GOING_SWEEPS, SweepKind, TrialState
from service.database.json_columns import LastLosses, ReportedLosses, TrialPhase, TrialQueued, TrialReport
from service.database.sessions import at_end, defer, now
from service.errors import LeaseLostError
from service.events import events
from service.events.events import NewEvent
from service.leases import attempts, curves, leased_sweeps, phases, row_locks, transitions, trials, worker_reports
from service.leases import schemas as lease_schemas
from service.leases import statements as sql
from service.leases.feasibility import (
    Judgement,
    check_learnt_metrics,
    check_required_metrics,
    describe_broken_hardware,
    describe_judgement,
    judge,
)
from service.leases.leased_sweeps import LeasedSweep
from service.leases.row_locks import ChangesTrial

WAIT_CAUSES: tuple[lease_schemas.WaitCause, ...] = get_args(lease_schemas.WaitCause)
MOST_WAITED_SECONDS = 1e6
"""More is no wait of an attempt."""

MOST_UNCHARGED = 10
"""Attempts of a trial that end without a charge, as their workers drain, before the next ones are charged."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the holder is told to do, and why."""

    action: lease_schemas.Action
    reason: str | None = None
    keep_training_state: bool = False
    """Of a training that is to be pruned: upload the state from which it can go on."""


def is_held(session: Session, trial_id: str, attempt: int) -> bool:
    """Whether the attempt holds its trial, and its lease has not lapsed: nobody else can have it, or get it now."""
    return session.connection().scalar(sql.IS_HELD_NOW, {"of_trial": trial_id, "attempt_number": attempt}) is not None


def heartbeat(session: Session, trial_id: str, attempt: int, lease_seconds: float) -> Instruction:
    """Renew the lease. "cancel": stop and throw the attempt away. Raises LeaseLostError."""
    return _instruction(session, trial_id, attempt, _renew(session, trial_id, attempt, lease_seconds))


def report(
    session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseReport, lease_seconds: float
) -> Instruction:
    """Store what the attempt reports and renew the lease. Losses sent twice are stored once.

    "infeasible": the metrics break a hardware constraint. Raises LeaseLostError, and UnprocessableError for what
    `worker_reports` refuses.
    """
    row_locks.take(session, ChangesTrial(trial_id))
    trial = _renew(session, trial_id, attempt, lease_seconds)
    broken = None
    if trial is not None:
        _store_report(session, trial, body)
        if body.metrics:
            broken = _broken_hardware(session, trial_id, attempt, body)
    instruction = _instruction(session, trial_id, attempt, trial)
    if broken is not None and instruction.action == "continue":
        return Instruction("infeasible", broken)
    return instruction


@dataclass(frozen=True, slots=True)
class Finish:
    """How an attempt ends, as its holder says it."""

    trial: str
    attempt: int
    body: lease_schemas.LeaseFinish


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial that its attempt has ended."""

    trial: lease_schemas.Trial
    worker: str | None
    """Who executed the attempt; None if that was not looked up, because the finish was sent again."""


def finish(session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseFinish) -> lease_schemas.Trial:
    """End the trial with the attempt's outcome, metrics and measurements, and judge the sweep's constraints.

    The finish that was accepted may be sent again. Raises LeaseLostError for a stale attempt, UnprocessableError for
    metrics that are missing, and for what `worker_reports` refuses.
    """
    row_locks.take(session, ChangesTrial(trial_id))
    return end_attempts(session, [Finish(trial_id, attempt, body)])[0].trial


def end_attempts(session: Session, finishes: Sequence[Finish]) -> list[Finished]:
    """`finish` of several trials, for who has locked their sweeps."""
    held = _held(session, [each.trial for each in finishes])
    ended: dict[int, Finished] = {}
    endings: dict[int, transitions.Ending] = {}
    for position, each in enumerate(finishes):
        trial = held.get(each.trial)
        if trial is not None and trial.attempt == each.attempt:
            endings[position] = _ending(session, trial, each.body)
        elif attempts.finished_with(session, each.trial, each.attempt) == _digest(each.body):
            ended[position] = Finished(trials.to_schema(trials.get(session, each.trial)), None)
        else:
            raise _lost(session, each.trial, each.attempt)
    for position, trial in zip(endings, transitions.end(session, list(endings.values())), strict=True):
        ended[position] = Finished(trial, endings[position].trial.worker_id)
        # Now that none was refused, for which all would be done again.
        _count_waits(finishes[position].body.measurements.get("waits", {}))
    return [ended[position] for position in range(len(finishes))]


def _ending(session: Session, trial: sql.Row, body: lease_schemas.LeaseFinish) -> transitions.Ending:
    """How a finish ends its trial; what else it brings is stored."""
    worker_reports.check_measurements(body.measurements)
    worker_reports.check_reason(body.outcome, body.reason)
    sweep = leased_sweeps.get(session, trial.sweep_id)
    metrics = _checked_metrics(trial, sweep, body.metrics)
    figures = worker_reports.checked_noise(body.noise, body.metrics, sweep.metric_names)
    violations, feasible, undecided = trial.violations, trial.feasible, list[str]()
    reason = body.reason
    if trial.replicate_of is not None:
        if body.outcome == TrialState.COMPLETE:
            check_learnt_metrics(metrics)
    elif body.outcome in (TrialState.COMPLETE, TrialState.INFEASIBLE):
        if body.outcome == TrialState.COMPLETE:
            check_required_metrics(sweep.objectives, sweep.constraints, metrics)
        judgement = _judgement(session, trial.id, sweep, metrics, figures)
        violations, undecided = judgement.violations, judgement.undecided
        feasible = judgement.feasible if body.outcome == TrialState.COMPLETE else False
        if body.outcome == TrialState.COMPLETE and reason is None:
            reason = describe_judgement(judgement, metrics, figures)
    _store_results(session, trial, metrics, body.measurements)
    attempts.append_log(session, trial.id, trial.attempt, body.log)
    findings: transitions.Findings = {
        "metrics": metrics,
        "violations": violations,
        "feasible": feasible,
        "noise": {"figures": figures, "undecided": undecided} if figures else None,
    }
    return transitions.Ending(
        trial,
        TrialState(body.outcome),
        reason,
        findings=findings,
        finish_hash=_digest(body),
        device_seconds=body.metrics.get("device_seconds", 0.0),
    )


def release(session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseRelease) -> lease_schemas.Trial:
    """Give the trial back to the queue; charged too often, it fails; in a sweep that has ended, it is cancelled.

    After `MOST_UNCHARGED` attempts that were charged to nobody, each further one is charged: a trial that takes longer
    than its workers live would be repeated for ever.

    Raises LeaseLostError.
    """
    row_locks.take(session, ChangesTrial(trial_id))
    trial = _held(session, [trial_id]).get(trial_id)
    if trial is None or trial.attempt != attempt:
        raise _lost(session, trial_id, attempt)
    charge, reason = body.charge, body.reason
    if not charge and attempt - trial.charged_attempts > MOST_UNCHARGED:
        charge = True
        reason += f" (in attempt {attempt}: the trial may take longer than the time limit of its workers)"
    charged = trial.charged_attempts + charge
    if trial.sweep_state not in GOING_SWEEPS or charged >= trial.max_attempts:
        return transitions.give_up(session, trial, charged, reason)
    attempts.end(session, trial_id, attempt, "released", reason)
    row = session.connection().execute(sql.REQUEUE, {"of_trial": trial_id, "charged": charged}).one()
    data: TrialQueued = {
        "number": trial.number,
        "attempt": attempt,
        "reason": reason,
        "charged": charge,
    }
    event = NewEvent("trial.queued", trial_id, data)
    transitions.leave(session, [transitions.Leaving(trial, TrialState.QUEUED, event)])
    return trials.to_schema(row)


def _renew(session: Session, trial_id: str, attempt: int, lease_seconds: float) -> sql.Row | None:
    """Lock the trial for the holder of its lease and renew that; None when the lease is lost."""
    connection = session.connection()
    fence = {"of_trial": trial_id, "attempt_number": attempt, "lease_seconds": lease_seconds}
    trial = connection.execute(sql.RENEW, fence).one_or_none()
    if trial is not None:
        at_end(session, sql.SEE_WORKER, trial.worker_id, {"of_worker": trial.worker_id})
    return trial


def _held(session: Session, trial_ids: Sequence[str]) -> dict[str, sql.Row]:
    """Lock those of the trials that run."""
    rows = session.connection().execute(sql.HELD, {"of_trials": trial_ids})
    return {row.id: row for row in rows}


def _instruction(session: Session, trial_id: str, attempt: int, held: sql.Row | None) -> Instruction:
    if held is None:
        trial = trials.get(session, trial_id)
        if trial.state == TrialState.CANCELLED and trial.attempt == attempt:
            return Instruction("cancel", trial.reason)
        raise _lost(session, trial_id, attempt)
    state = session.connection().scalar(sql.SWEEP_STATE, {"of_sweep": held.sweep_id})
    return Instruction("continue") if state in GOING_SWEEPS else Instruction("cancel", f"the sweep is {state}")


def _broken_hardware(session: Session, trial_id: str, attempt: int, body: lease_schemas.LeaseReport) -> str | None:
    """Which hardware constraints these metrics break, in words; None if they break none, or the training has begun."""
    trial = _held(session, [trial_id])[trial_id]
    sweep = leased_sweeps.get(session, trial.sweep_id)
    known = _checked_metrics(trial, sweep, body.metrics)
    figures = worker_reports.checked_noise(body.noise, body.metrics, sweep.metric_names)
    if phases.has_trained(attempts.entered_phases(session, trial_id, attempt)):
        return None
    attempts.keep_early_metrics(session, trial_id, attempt, known)
    return describe_broken_hardware(sweep.constraints, _configuration(session, trial_id), known, figures)


def _judgement(
    session: Session,
    trial_id: str,
    sweep: LeasedSweep,
    metrics: Mapping[str, float],
    figures: Mapping[str, StoredFigure],
) -> Judgement:
    if not sweep.constraints:
        return Judgement({}, [])
    return judge(sweep.constraints, _configuration(session, trial_id), metrics, figures)


def _configuration(session: Session, trial_id: str) -> Configuration:
    return session.connection().execute(sql.CONFIGURATION, {"of_trial": trial_id}).scalar_one()


def _checked_metrics(trial: sql.Row, sweep: LeasedSweep, reported: Mapping[str, float]) -> dict[str, float]:
    """What is known of a trial with what its worker says. Raises UnprocessableError for what `worker_reports`
    refuses."""
    confirms = sweep.kind is SweepKind.CONFIRMATION
    named = worker_reports.checked_metrics(reported, trial.metrics, sweep.metric_names, confirms=confirms)
    return {**trial.metrics, **named, **worker_reports.own_figures(trial.metrics)}


def _lost(session: Session, trial_id: str, attempt: int) -> LeaseLostError:
    trial = trials.get(session, trial_id)
    return LeaseLostError(
        f"attempt {attempt} of trial {trial_id} does not run: the trial is {trial.state}, "
        f"its newest attempt is {trial.attempt}"
    )


def _store_report(session: Session, trial: sql.Row, body: lease_schemas.LeaseReport) -> None:
    worker_reports.check_progress(body.progress)
    worker_reports.check_losses(body.losses)
    connection, time = session.connection(), now(session)
    attempts.append_log(session, trial.id, trial.attempt, body.log)
    new: list[NewEvent] = []
    phase, progress = trial.phase, trial.progress
    if body.phase is not None and body.phase != phase:
        attempts.enter_phase(session, trial.id, trial.attempt, body.phase, time)
        phase, progress = body.phase, None
        entered: TrialPhase = {"number": trial.number, "attempt": trial.attempt, "phase": body.phase}
        new.append(NewEvent("trial.phase", trial.id, entered))
    if body.progress is not None:
        progress = body.progress
    last: LastLosses = {}
    if body.losses:
        curves.store(session, trial.id, trial.attempt, body.losses, time)
        last["losses"] = cast("ReportedLosses", body.losses[-1].model_dump(exclude_none=True))
    if body.losses or body.progress is not None:
        reported: TrialReport = {
            "number": trial.number,
            "attempt": trial.attempt,
            **last,
            "phase": phase,
            "progress": progress,
        }
        new.append(NewEvent("trial.report", trial.id, reported))
    if new:
        connection.execute(sql.REPORT, {"of_trial": trial.id, "new_phase": phase, "new_progress": progress})
        events.append_all(session, trial.sweep_id, new)


def _store_results(
    session: Session, trial: sql.Row, metrics: Mapping[str, float], measurements: Mapping[str, JsonObject]
) -> None:
    if metrics:
        identity = {"trial_id": trial.id, "sweep_id": trial.sweep_id}
        rows = [identity | {"name": name, "value": float(value)} for name, value in metrics.items()]
        defer(session, sql.ADD_METRICS, *rows)
    if measurements:
        identity = {"trial_id": trial.id, "attempt": trial.attempt}
        rows = [identity | {"name": name, "data": data} for name, data in measurements.items()]
        session.connection().execute(sql.ADD_MEASUREMENTS, rows)


def _count_waits(waits: JsonObject) -> None:
    """As with phases, a transaction that is run again counts twice. What an attempt says is not to be believed."""
    for cause in WAIT_CAUSES:
        seconds = waits.get(cause)
        if isinstance(seconds, int | float) and 0 <= seconds < MOST_WAITED_SECONDS:
            WAIT_SECONDS.labels(cause).inc(seconds)


def _digest(body: lease_schemas.LeaseFinish) -> str:
    # Whether a trial is claimed with it is no part of what is finished.
    finished = body.model_dump(mode="json", exclude={"claim"})
    canonical = json.dumps(finished, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
