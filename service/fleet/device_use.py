"""How busy a worker's device was, as the worker says it: by the driver, or by its own attempts."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.json_columns import DeviceUse, ReportedDeviceUse
from service.database.models import Worker
from service.database.sessions import at_end, now
from service.fleet.schemas import WorkerReport
from service.leases import workers

FRESH_SECONDS = 180.0
"""What was said longer ago says nothing of now. A worker of this project says it every minute."""

_WORKERS = cast("sa.Table", Worker.__table__)
_NOTE = (
    sa.update(_WORKERS)
    .where(_WORKERS.c.id == sa.bindparam("of_worker"))
    .values(device_use=sa.bindparam("reported", type_=_WORKERS.c.device_use.type))
)


def note(session: Session, worker_id: str, report: WorkerReport, project: str | None) -> WorkerReport:
    """Keep what a worker of the project (None: of any) says, and return it. Raises NotFoundError."""
    workers.check_reach(session, worker_id, project)
    use = report.device_use
    reported = ReportedDeviceUse(
        busy_share=use.busy_share, over_seconds=use.over_seconds, source=use.source, at=now(session)
    )
    at_end(session, _NOTE, worker_id, {"of_worker": worker_id, "reported": reported})
    return report


def fresh(reported: ReportedDeviceUse | None, time: float) -> DeviceUse | None:
    """What was said, if that is not long ago."""
    if reported is None or time - reported["at"] > FRESH_SECONDS:
        return None
    return DeviceUse(
        busy_share=reported["busy_share"], over_seconds=reported["over_seconds"], source=reported["source"]
    )
