"""Which sweeps give trials next, as `statements.TURN` orders them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple


class Waiting(NamedTuple):
    """A sweep that may begin trials, of those of one order."""

    id: str
    priority: int
    running: int
    room: int
    """How many trials it may begin now."""
    quota: str | None = None
    """The project whose quota each of them counts against: that gives one trial, as nobody says how many are left."""


def turns(waiting: Iterable[Waiting], count: int) -> list[str]:
    """The sweeps that give `count` trials, one after the other, each the one whose turn it is then."""
    line = [(-sweep.priority, sweep.running, sweep.id, sweep.room, sweep.quota) for sweep in waiting]
    heapq.heapify(line)
    given: list[str] = []
    used = set[str]()
    while line and len(given) < count:
        lowness, running, sweep_id, room, quota = line[0]
        if room > 1 and quota is None:
            heapq.heapreplace(line, (lowness, running + 1, sweep_id, room - 1, quota))
        else:
            heapq.heappop(line)
        if quota is None or quota not in used:
            given.append(sweep_id)
        if quota is not None:
            used.add(quota)
    return given
