"""Who schedules a sweep: one process at a time. The epoch of its lease fences what a former leader still writes."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.models import Sweep
from service.database.sessions import now_sql
from service.leases import row_locks


class StaleLeaderError(Exception):
    """Another process leads the sweep, or it changed since it was read: what was computed is not written."""


def acquire(session: Session, sweep_id: str, leader_id: str, leader_seconds: float) -> int | None:
    """Become the sweep's leader and return the new epoch; None while another leads it, or if it is gone."""
    return session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, may_lead(leader_id))
        .values(leader_id=leader_id, leader_epoch=Sweep.leader_epoch + 1, leader_expires_at=now_sql() + leader_seconds)
        .returning(Sweep.leader_epoch)
        .execution_options(synchronize_session=False)
    )


def renew(session: Session, sweep_ids: Collection[str], leader_id: str, leader_seconds: float) -> set[str]:
    """Go on leading these sweeps; return those that are still led."""
    row_locks.take_sweeps(session, sweep_ids)
    kept = session.scalars(
        sa.update(Sweep)
        .where(Sweep.id.in_(sweep_ids), Sweep.leader_id == leader_id)
        .values(leader_expires_at=now_sql() + leader_seconds)
        .returning(Sweep.id)
        .execution_options(synchronize_session=False)
    )
    return set(kept)


def release(session: Session, leader_id: str) -> None:
    """Lead no sweep any more, so that another process need not wait for the lease to end."""
    led = session.scalars(sa.select(Sweep.id).where(Sweep.leader_id == leader_id)).all()
    row_locks.take_sweeps(session, led)
    session.execute(
        sa.update(Sweep)
        .where(Sweep.id.in_(led), Sweep.leader_id == leader_id)
        .values(leader_id=None, leader_expires_at=None),
        execution_options={"synchronize_session": False},
    )


def may_lead(leader_id: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """The condition under which `leader_id` may take a sweep."""
    return sa.or_(
        Sweep.leader_id.is_(None),
        Sweep.leader_id == leader_id,
        Sweep.leader_expires_at.is_(None),
        Sweep.leader_expires_at <= now_sql(),
    )
