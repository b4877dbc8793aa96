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
    """The project whose quota each of them counts against. Nobody says how much of it is left."""


def turns(waiting: Iterable[Waiting], count: int) -> list[str]:
    """The sweeps that give `count` trials, one after the other, each the one whose turn it is then.

    Fewer if the next turn is of a quota that one of these trials may have used up.
    """
    line = [(-sweep.priority, sweep.running, sweep.id, sweep.room, sweep.quota) for sweep in waiting]
    heapq.heapify(line)
    given: list[str] = []
    used = set[str]()
    while line and len(given) < count:
        lowness, running, sweep_id, room, quota = line[0]
        if quota in used:
            break
        if quota is not None:
            used.add(quota)
        given.append(sweep_id)
        if room > 1:
            heapq.heapreplace(line, (lowness, running + 1, sweep_id, room - 1, quota))
        else:
            heapq.heappop(line)
    return given
