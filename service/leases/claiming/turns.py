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


def next_sweeps(waiting: Iterable[Waiting], count: int) -> set[str]:
    """The sweeps that would give `count` trials, one after the other, each to the sweep whose turn it is then."""
    turns = [(-sweep.priority, sweep.running, sweep.id, sweep.room) for sweep in waiting]
    heapq.heapify(turns)
    given: set[str] = set()
    for _ in range(count):
        if not turns:
            break
        lowness, running, sweep_id, room = turns[0]
        given.add(sweep_id)
        if room > 1:
            heapq.heapreplace(turns, (lowness, running + 1, sweep_id, room - 1))
        else:
            heapq.heappop(turns)
    return given
