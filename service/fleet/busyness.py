"""How busy devices were: the share of the last minutes in which a worker executed something, by its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.json_columns import DeviceUse
from service.database.models import Attempt, Worker
from service.database.sessions import now
from service.fleet import device_use

WINDOW_SECONDS = 600.0
"""How far it looks back."""


@dataclass(frozen=True, slots=True)
class Busyness:
    """Of one worker, since it registered and within the window."""

    device: float
    """The share of the time in which its device was held: at least one attempt was executed, or waited on it."""
    slots: float
    """The share of its slots' time."""
    use: DeviceUse | None
    """How busy the device was by the worker's own word; None if it has not said so lately."""


def of_workers(session: Session, worker_ids: Sequence[str]) -> dict[str, Busyness]:
    """Worker -> how busy it was lately, of those that are there."""
    time = now(session)
    begin = time - WINDOW_SECONDS
    found = session.execute(
        sa.select(Worker.id, Worker.slots, Worker.registered_at, Worker.device_use).where(Worker.id.in_(worker_ids))
    ).all()
    spans = _spans(session, worker_ids, begin, time)
    busyness: dict[str, Busyness] = {}
    for worker_id, slots, registered_at, reported in found:
        since = max(begin, registered_at)
        own = [(max(start, since), end) for start, end in spans.get(worker_id, ()) if end > since]
        seconds = max(time - since, 1e-3)
        device, taken = covered_seconds(own) / seconds, sum(end - start for start, end in own) / (seconds * slots)
        busyness[worker_id] = Busyness(min(device, 1.0), min(taken, 1.0), device_use.fresh(reported, time))
    return busyness


def covered_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """The time that lies in at least one of the spans."""
    covered, until = 0.0, -float("inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def _spans(
    session: Session, worker_ids: Sequence[str], begin: float, time: float
) -> dict[str, list[tuple[float, float]]]:
    """Worker -> its attempts from their begin to their end, or to now."""
    of_them = Attempt.worker_id.in_(worker_ids)
    spans: dict[str, list[tuple[float, float]]] = {}
    for ended in (Attempt.ended_at.is_(None), Attempt.ended_at >= begin):
        rows = session.execute(
            sa.select(Attempt.worker_id, Attempt.started_at, sa.func.coalesce(Attempt.ended_at, time)).where(
                of_them, ended
            )
        )
        for worker_id, started_at, ended_at in rows:
            spans.setdefault(worker_id, []).append((started_at, ended_at))
    return spans
