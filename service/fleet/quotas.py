"""What the sweeps of a project may use: how many trials at once, and up to which priority."""

from __future__ import annotations

from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.auth import projects
from service.common.notifications import QUEUE
from service.common.states import GOING_SWEEPS
from service.database.access_models import Project
from service.database.models import Sweep
from service.database.sessions import announce
from service.leases import row_locks
from service.sweeps import sweeps


class Change(TypedDict, total=False):
    """What is absent stays as it is; None lifts a limit."""

    max_running_trials: int | None
    max_priority: int | None


def change(session: Session, name: str, changes: Change) -> Project:
    """Change the quotas of a project; going sweeps with too high a priority get the highest one that is left.

    What runs goes on, even above the quota: no more is begun. Raises NotFoundError.
    """
    project = projects.get(session, name)
    if "max_running_trials" in changes:
        project.max_running_trials = changes["max_running_trials"]
    if "max_priority" in changes:
        project.max_priority = changes["max_priority"]
    session.flush()
    if project.max_priority is not None:
        _lower(session, name, project.max_priority)
    announce(session, QUEUE)
    return project


def _lower(session: Session, project: str, highest: int) -> None:
    too_high = session.scalars(
        sa.select(Sweep.id)
        .where(Sweep.project == project, Sweep.state.in_(GOING_SWEEPS), Sweep.priority > highest)
        .order_by(Sweep.id)
    ).all()
    row_locks.take_sweeps(session, too_high)
    for sweep_id in too_high:
        sweeps.prioritize(session, sweep_id, highest)
