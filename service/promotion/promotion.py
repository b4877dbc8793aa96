"""Promoting a pruned trial: it is trained on from where it was stopped, and nothing stops it again.

The event tells the scheduler, which queues the trial in the order of the sweep's events.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.common.states import GOING_SWEEPS, SweepState, TrialState
from service.database.json_columns import SweepChanged, TrialPromoted
from service.database.models import Sweep, Trial
from service.database.sessions import now
from service.errors import ConflictError, NotFoundError
from service.events import events
from service.leases import trials
from service.pruning.promoted import is_stopped
from service.sweeps import budgets


def promote(session: Session, trial_id: str) -> Trial:
    """Let a trial that a pruner has stopped be trained to its end; a sweep that was complete goes on for it.

    Promoting twice is fine. Raises NotFoundError, ConflictError.
    """
    sweep_id = trials.get(session, trial_id).sweep_id
    sweep = session.get(Sweep, sweep_id, with_for_update={"key_share": True}, populate_existing=True)
    if sweep is None:
        # It was deleted at this moment, with its trials.
        raise NotFoundError(f"there is no trial {trial_id}")
    trial = session.get_one(Trial, trial_id, with_for_update={"key_share": True}, populate_existing=True)
    if trial.promoted:
        return trial
    if not is_stopped(session, trial_id):
        raise ConflictError(_obstacle(trial))
    reopened = sweep.state not in GOING_SWEEPS
    if reopened:
        _reopen(session, sweep)
    trial.promoted = True
    session.flush()
    promoted: TrialPromoted = {"number": trial.number}
    events.append(session, sweep_id, "trial.promoted", trial_id=trial_id, data=promoted)
    if reopened:
        active: SweepChanged = {"state": SweepState.ACTIVE, "reason": None}
        events.append(session, sweep_id, "sweep.state", data=active)
    return trial


def _reopen(session: Session, sweep: Sweep) -> None:
    if sweep.state != SweepState.COMPLETED:
        raise ConflictError(
            f"the sweep is {sweep.state} ({sweep.reason}): only trials of one that goes on, or is "
            "complete, can be promoted"
        )
    used_up = budgets.time_used_up(
        SweepState.ACTIVE, sweep.started_at, sweep.device_seconds, sweep.budget, now(session)
    )
    if used_up is not None:
        raise ConflictError(f"the sweep's {used_up} are used up: extend them, then promote the trial")
    sweep.state, sweep.reason, sweep.ended_at = SweepState.ACTIVE, None, None


def _obstacle(trial: Trial) -> str:
    if trial.state == TrialState.PRUNED:
        return f"trial {trial.number} ended by itself ({trial.reason}): trained on it would end the same"
    return f"trial {trial.number} is {trial.state}: only one that a pruner has stopped can be promoted"
