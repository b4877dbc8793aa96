"""A trial that leaves its state: the row, its attempt, the sweep's counts and the event change together."""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy.orm import Session

from service.common.formatting import plural
from service.common.noise import StoredNoise
from service.common.states import GOING_SWEEPS, TrialState
from service.database import counts
from service.database.json_columns import TrialEnded
from service.events import events
from service.events.events import NewEvent
from service.leases import attempts, trials
from service.leases import schemas as lease_schemas
from service.leases import statements as sql


class Findings(TypedDict):
    """What a finished attempt found of its trial."""

    metrics: dict[str, float]
    violations: dict[str, float] | None
    feasible: bool | None
    noise: StoredNoise | None


def end(
    session: Session,
    trial: sql.Row,
    state: TrialState,
    reason: str | None,
    *,
    charged: int | None = None,
    findings: Findings | None = None,
    finish_hash: str | None = None,
    device_seconds: float = 0.0,
) -> lease_schemas.Trial:
    """End an open trial. Without `findings` its metrics, violations and feasibility stay as they are.

    `device_seconds`: what its attempt says that it has taken of the device's time.
    """
    if trial.attempt:
        end_attempt = attempts.end_without_phases if trial.phase is None else attempts.end
        end_attempt(session, trial.id, trial.attempt, state, reason, finish_hash)
    known: Findings = findings or {
        "metrics": trial.metrics,
        "violations": trial.violations,
        "feasible": trial.feasible,
        "noise": trial.noise,
    }
    ended = {
        "of_trial": trial.id,
        "new_state": state,
        "its_reason": reason,
        "charged": trial.charged_attempts if charged is None else charged,
        "all_metrics": known["metrics"],
        "its_violations": known["violations"],
        "is_feasible": known["feasible"],
        "its_noise": known["noise"],
    }
    row = session.connection().execute(sql.END, ended).one()
    data: TrialEnded = {"number": trial.number, "state": state, "feasible": row.feasible, "reused": False}
    leave(session, trial, state, NewEvent("trial.ended", trial.id, data), device_seconds)
    return trials.to_schema(row)


def give_up(session: Session, trial: sql.Row, charged: int, why: str) -> lease_schemas.Trial:
    """End a trial that lost its attempt and is not tried again: its sweep has ended, or its attempts are used up."""
    if trial.sweep_state not in GOING_SWEEPS:
        return end(session, trial, TrialState.CANCELLED, f"the sweep is {trial.sweep_state}", charged=charged)
    reason = f"{charged} of at most {plural(trial.max_attempts, 'attempt')} lost, the last one so: {why}"
    return end(session, trial, TrialState.FAILED, reason, charged=charged)


def leave(session: Session, trial: sql.Row, state: TrialState, event: NewEvent, device_seconds: float = 0.0) -> None:
    """Count a trial that went from its state to another, and say so."""
    leaving = {
        "of_sweep": trial.sweep_id,
        "ran": int(trial.state == TrialState.RUNNING),
        "old_state": counts.key(trial.state, trial.replicate_of),
        "new_state": counts.key(state, trial.replicate_of),
        "took": device_seconds,
    }
    newest = session.connection().execute(sql.LEAVE, leaving).scalar_one()
    events.write(session, trial.sweep_id, newest, [event])
