"""A trial that leaves its state: the row, its attempt, the sweep's counts and the event change together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from sqlalchemy.orm import Session

from service.common.formatting import plural
from service.common.noise import StoredNoise, shown
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How an open trial ends. Without `findings` its metrics, violations and feasibility stay as they are."""

    trial: sql.Row
    """With what `service.leases.statements.HELD` reads."""
    state: TrialState
    reason: str | None
    charged: int | None = None
    findings: Findings | None = None
    finish_hash: str | None = None
    device_seconds: float = 0.0
    """What its attempt says that it has taken of the device's time."""

    @property
    def known(self) -> Findings:
        """What is known of the trial then."""
        row = self.trial
        return self.findings or {
            "metrics": row.metrics,
            "violations": row.violations,
            "feasible": row.feasible,
            "noise": row.noise,
        }


def end(session: Session, endings: Sequence[Ending]) -> list[lease_schemas.Trial]:
    """End open trials; return each as it is then."""
    if not endings:
        return []
    for ending in endings:
        trial = ending.trial
        if trial.attempt:
            end_attempt = attempts.end_without_phases if trial.phase is None else attempts.end
            end_attempt(session, trial.id, trial.attempt, ending.state, ending.reason, ending.finish_hash)
    session.connection().execute(sql.END, [_ended_row(ending) for ending in endings])
    leave(session, [_leaving(ending) for ending in endings])
    return [_ended(ending) for ending in endings]


def _ended_row(ending: Ending) -> dict[str, object]:
    trial, known = ending.trial, ending.known
    return {
        "of_trial": trial.id,
        "new_state": ending.state,
        "its_reason": ending.reason,
        "charged": trial.charged_attempts if ending.charged is None else ending.charged,
        "all_metrics": known["metrics"],
        "its_violations": known["violations"],
        "is_feasible": known["feasible"],
        "its_noise": known["noise"],
        "time": trial.time,
    }


def _leaving(ending: Ending) -> Leaving:
    trial, state = ending.trial, ending.state
    data: TrialEnded = {
        "number": trial.number,
        "state": state,
        "feasible": ending.known["feasible"],
        "reused": False,
    }
    return Leaving(trial, state, NewEvent("trial.ended", trial.id, data), ending.device_seconds)


def _ended(ending: Ending) -> lease_schemas.Trial:
    known = ending.known
    changes: dict[str, object] = {
        "state": ending.state,
        "reason": ending.reason,
        "metrics": known["metrics"],
        "violations": known["violations"],
        "feasible": known["feasible"],
        "noise": shown(known["noise"], known["metrics"], known["feasible"]),
        "phase": None,
        "progress": None,
        "ended_at": ending.trial.time,
    }
    return trials.to_schema(ending.trial).model_copy(update=changes)


def give_up(session: Session, trial: sql.Row, charged: int, why: str) -> lease_schemas.Trial:
    """End a trial that lost its attempt and is not tried again: its sweep has ended, or its attempts are used up."""
    if trial.sweep_state not in GOING_SWEEPS:
        reason = f"the sweep is {trial.sweep_state}"
        return end(session, [Ending(trial, TrialState.CANCELLED, reason, charged)])[0]
    reason = f"{charged} of at most {plural(trial.max_attempts, 'attempt')} lost, the last one so: {why}"
    return end(session, [Ending(trial, TrialState.FAILED, reason, charged)])[0]


class Leaving(NamedTuple):
    """A trial that goes from its state to another, and the event that says so."""

    trial: sql.Row
    state: TrialState
    event: NewEvent
    device_seconds: float = 0.0

    @property
    def move(self) -> tuple[str, bool, str, str]:
        """Its sweep, whether it ran, and under which names it was and is counted there."""
        trial = self.trial
        old, new = (counts.key(state, trial.replicate_of) for state in (trial.state, self.state))
        return trial.sweep_id, trial.state == TrialState.RUNNING, old, new


def leave(session: Session, leavings: Sequence[Leaving]) -> None:
    """Count trials that went from their states to others, and say so."""
    alike: dict[tuple[str, bool, str, str], list[Leaving]] = {}
    for leaving in leavings:
        alike.setdefault(leaving.move, []).append(leaving)
    for (sweep_id, ran, old_state, new_state), moved in alike.items():
        of_sweep = {
            "of_sweep": sweep_id,
            "trials": len(moved),
            "ran": len(moved) if ran else 0,
            "old_state": old_state,
            "new_state": new_state,
            "took": sum(leaving.device_seconds for leaving in moved),
        }
        newest = session.connection().execute(sql.LEAVE, of_sweep).scalar_one()
        events.write(session, sweep_id, newest, [leaving.event for leaving in moved])
