"""The columns of large sweeps, read in the background after a start: so that nobody's first sort waits for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.database.models import Sweep
from service.database.sessions import AsyncRead
from service.errors import NotFoundError
from service.results.columns import ColumnStore, metric_names
from service.results.leaderboards import get_sweep, parameter_names

LARGE = 5_000
"""Events of a sweep from which reading its columns is felt: a trial has one at least."""
MOST = 3
"""Sweeps that are read, the newest."""

_log = logging.getLogger(__name__)


async def prewarm(read: AsyncRead, columns: ColumnStore) -> None:
    """Read the columns of the newest large sweeps step by step: a request that comes meanwhile waits for one step."""
    try:
        for sweep_id in await read(_large):
            for names in await read(partial(_steps, sweep_id)):
                await read(partial(_load, columns, sweep_id, names))
    except (SQLAlchemyError, NotFoundError) as problem:
        _log.warning("columns are read when they are asked for: they could not be read ahead: %s", problem)


def _large(session: Session) -> Sequence[str]:
    query = sa.select(Sweep.id).where(Sweep.event_counter > LARGE).order_by(Sweep.created_at.desc()).limit(MOST)
    return session.scalars(query).all()


def _steps(sweep_id: str, session: Session) -> list[list[str]]:
    """What to read in one go: nothing but the facts, then each metric, then all parameters, which lie together."""
    sweep = get_sweep(session, sweep_id)
    objectives = [objective["metric"] for objective in sweep.objectives]
    metrics = dict.fromkeys([*objectives, *metric_names(session, sweep)])
    return [[], *([name] for name in metrics), parameter_names(sweep)]


def _load(columns: ColumnStore, sweep_id: str, names: Sequence[str], session: Session) -> None:
    columns.of(session, get_sweep(session, sweep_id), names)
