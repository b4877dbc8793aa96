"""When a claim looks for lapsed leases: in each process about once a second for alike workers, not every time.

To find them all trials that run are read, for no index could hold times that every heartbeat changes. A lapsed lease is
so taken again a second later than it could be, of the 30 or more that it has lasted.
"""

from __future__ import annotations

import threading
import time

import sqlalchemy as sa

from service.leases.claimants import Claimant

LOOK_SECONDS = 1.0
_MOST = 4096

_lock = threading.Lock()
_found_none: dict[tuple[str | None, Claimant], float] = {}
"""Database and kind of worker -> when (monotonic clock) a claim looked and found none."""


def are_due(connection: sa.Connection, claimant: Claimant) -> bool:
    """Whether a claim of such a worker looks for lapsed leases now."""
    with _lock:
        looked_at = _found_none.get((connection.engine.url.database, claimant))
    return looked_at is None or time.monotonic() >= looked_at + LOOK_SECONDS


def note_none_lapsed(connection: sa.Connection, claimant: Claimant) -> None:
    """A claim of such a worker looked, and there are none."""
    with _lock:
        if len(_found_none) >= _MOST:
            _found_none.clear()
        _found_none[connection.engine.url.database, claimant] = time.monotonic()
