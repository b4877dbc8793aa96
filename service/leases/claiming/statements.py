"""The statements that find what a worker may be given. Built once, as those of `service.leases.statements`.

What has lapsed comes first, if it is looked for (`lapses`): it was begun, and takes no room. Else a sweep has its
turn (`TURN`), and gives its oldest queued trial. Active sweeps are few and their trials many, so a sweep is found
first, by its own row, and then one trial of it by an index: what a claim costs grows with the active sweeps alone.
"""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from layers.results_version import UNSAID
from service.common.states import GOING_SWEEPS, SweepState, TrialState
from service.database import sql_functions
from service.database.access_models import Project
from service.database.models import Sweep, Trial, Worker
from service.database.sessions import now_sql
from service.leases.statements import IS_OPEN, LEASE, MAY_FAIL_ONCE_MORE

_TRIALS, _SWEEPS, _WORKERS, _PROJECTS = (cast("sa.Table", model.__table__) for model in (Trial, Sweep, Worker, Project))

_MEASURES_ALIKE = sa.func.coalesce(_SWEEPS.c.results_version, UNSAID) == sql_functions.integer("results_version")
"""The worker is of the `RESULTS_VERSION` that the sweep got with its target: one front has results of one version."""
_HAS_LABELS = sa.or_(
    _SWEEPS.c.labels.is_(None),
    sql_functions.has_labels(_SWEEPS.c.labels, sa.bindparam("worker_labels", type_=_WORKERS.c.labels.type)),
)
"""The worker has the labels that the sweep asks for."""
_IS_SERVED = sa.and_(
    _SWEEPS.c.state == SweepState.ACTIVE,
    sql_functions.is_one_of(_SWEEPS.c.target_key, "target_keys"),
    # A worker without a project serves all of them.
    _SWEEPS.c.project == sa.func.coalesce(sql_functions.text("of_project"), _SWEEPS.c.project),
    _MEASURES_ALIKE,
    _HAS_LABELS,
)

_HELD_TRIALS = _TRIALS.alias("held")
_HELD = (
    sa.select(sa.func.count())
    .select_from(_HELD_TRIALS)
    # Word for word the condition of the index. What has lapsed may be taken by anybody: it fills no slot.
    .where(sa.text("held.state = 'running'"), _HELD_TRIALS.c.worker_id == _WORKERS.c.id)
    .where(_HELD_TRIALS.c.lease_expires_at >= now_sql())
    .correlate(_WORKERS)
    .scalar_subquery()
)
FREE_SLOTS = sa.select(_WORKERS.c.id, (_WORKERS.c.slots - _HELD).label("free")).where(
    sql_functions.is_one_of(_WORKERS.c.id, "of_workers"), _WORKERS.c.signed_off_at.is_(None)
)
"""A worker holds no more leases than it has slots; one that is unknown or has signed off has none."""

# --- what has lapsed --------------------------------------------------------------------------------------------------


def _lapsed(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Trials whose lease lapsed and that may be tried again, the oldest first."""
    return (
        sa.select(*columns)
        .join(_SWEEPS, _SWEEPS.c.id == _TRIALS.c.sweep_id)
        .where(
            IS_OPEN,
            sql_functions.is_one_of(_TRIALS.c.target_key, "target_keys"),
            _TRIALS.c.state == TrialState.RUNNING,
            _TRIALS.c.lease_expires_at < now_sql(),
            _TRIALS.c.charged_attempts + 1 < _TRIALS.c.max_attempts,
            _IS_SERVED,
        )
        .order_by(_TRIALS.c.id)
    )


# --- whose turn it is -------------------------------------------------------------------------------------------------

_ACTIVE = _SWEEPS.alias("of_project_active")
_RUNNING_IN_PROJECT = (
    sa.select(sa.func.coalesce(sa.func.sum(_ACTIVE.c.running_count), 0))
    .where(_ACTIVE.c.state.in_([sa.literal_column(f"'{state}'") for state in GOING_SWEEPS]))
    # Joined, so that no index of it is used: a project has many sweeps that ended.
    .where(_ACTIVE.c.project.concat("") == _PROJECTS.c.name)
    .scalar_subquery()
)
_FULL_PROJECTS = sa.select(_PROJECTS.c.name).where(
    _PROJECTS.c.max_running_trials.is_not(None), _PROJECTS.c.max_running_trials <= _RUNNING_IN_PROJECT
)
"""Those that run as many trials as their quota allows."""
_QUEUED_TRIALS = _TRIALS.alias("queued")
_HAS_QUEUED = sa.exists(
    sa.select(sa.literal(1))
    .select_from(_QUEUED_TRIALS)
    .where(_QUEUED_TRIALS.c.sweep_id == _SWEEPS.c.id, _QUEUED_TRIALS.c.state == TrialState.QUEUED)
)
TURN = (_SWEEPS.c.priority.desc(), _SWEEPS.c.running_count, _SWEEPS.c.id)
"""A higher priority comes first; of equal ones the sweep that runs the fewest trials; of these the oldest."""


def _with_turn(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Sweeps that may begin a trial, in their order."""
    return (
        sa.select(*columns)
        .where(
            _IS_SERVED,
            _SWEEPS.c.running_count < _SWEEPS.c.effective_parallel,
            MAY_FAIL_ONCE_MORE,
            _SWEEPS.c.project.not_in(_FULL_PROJECTS),
            _HAS_QUEUED,
        )
        .order_by(*TURN)
    )


# --- both -------------------------------------------------------------------------------------------------------------

_IN_SWEEPS = sql_functions.is_one_of(_SWEEPS.c.id, "sweeps")
_MOST = sql_functions.integer("most")

LAPSED_SWEEPS = _lapsed(_TRIALS.c.sweep_id).limit(_MOST)
"""The sweeps of the oldest lapsed trials, one for each of these."""
LAPSED_TRIALS = _lapsed(*LEASE).limit(_MOST).with_for_update(of=_TRIALS, skip_locked=True, key_share=True)
"""Such trials, locked."""
LAPSED_TRIALS_IN_SWEEPS = LAPSED_TRIALS.where(_IN_SWEEPS)

_WITH_QUOTA = (
    sa.select(_PROJECTS.c.name)
    .where(_PROJECTS.c.name == _SWEEPS.c.project, _PROJECTS.c.max_running_trials.is_not(None))
    .scalar_subquery()
    .label("project_with_quota")
)
SWEEPS_WITH_TURN = _with_turn(
    _SWEEPS.c.id,
    _SWEEPS.c.priority,
    _SWEEPS.c.running_count,
    _SWEEPS.c.effective_parallel,
    _SWEEPS.c.counts,
    _WITH_QUOTA,
).limit(_MOST)
"""The first sweeps in their order, each with its project if that has a quota."""
SWEEPS_WITH_TURN_IN_SWEEPS = SWEEPS_WITH_TURN.where(_IN_SWEEPS)
QUEUED = (
    sa.select(*LEASE)
    .where(_TRIALS.c.sweep_id == sql_functions.text("of_sweep"), _TRIALS.c.state == TrialState.QUEUED)
    .order_by(_TRIALS.c.id)
    .limit(_MOST)
    .with_for_update(skip_locked=True, key_share=True)
)
"""The oldest trials of a sweep that are queued, locked."""
