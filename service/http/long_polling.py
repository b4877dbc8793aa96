"""What other processes change in sweeps that somebody waits for here: one look for all who wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from service.common.notifications import SWEEP_PREFIX, Notifications, sweep_topic
from service.database.models import Sweep
from service.http.dependencies import Services

WAIT_SECONDS = 10.0
"""How long a caller that waits for a sweep is left alone: then it is seen whether it is still there."""

LOOK_SECONDS = 0.1
"""How often the sweeps that somebody waits for are looked at, all of them by one query."""

_log = logging.getLogger(__name__)


class ChangePoller:
    """Publishes the topics of the sweeps that changed, `LOOK_SECONDS` after they did at the latest.

    A thousand callers that wait cost one query a look. A sweep that is watched anew is published at once: it may have
    changed between its caller's read and the first look.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        """Look until cancelled. While the database is away, nobody learns anything, and the next look tries again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.poll()
            except (DBAPIError, PoolTimeoutError):
                _log.warning("the database did not answer: nobody learns now what other processes changed")

    async def poll(self) -> None:
        """Wake those whose sweeps changed since the last look."""
        waited = _waited(self._services.notifications)
        now = await self._services.read(lambda session: _versions(session, waited)) if waited else {}
        changed = [sweep_id for sweep_id in waited if self._seen.get(sweep_id) != now.get(sweep_id, -1)]
        self._seen = {sweep_id: now.get(sweep_id, -1) for sweep_id in waited}
        self._services.notifications.publish(sweep_topic(sweep_id) for sweep_id in changed)


def _waited(notifications: Notifications) -> set[str]:
    return {topic.removeprefix(SWEEP_PREFIX) for topic in notifications.waited() if topic.startswith(SWEEP_PREFIX)}


def _versions(session: Session, sweep_ids: Collection[str]) -> dict[str, int]:
    """A number of each sweep that grows with its events and its ranks; without those that are gone."""
    version = Sweep.event_counter + Sweep.scheduled_sequence
    rows = session.execute(sa.select(Sweep.id, version).where(Sweep.id.in_(sweep_ids)))
    return dict(rows.all())
