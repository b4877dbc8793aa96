"""A finite space in a seeded random order: the grid's, and the source of new points when a sampler repeats itself."""

from __future__ import annotations

import random
from array import array

from layers.base import Scalar
from layers.space import Space

_WINDOW = 4096
"""Points that are kept at a time; the space is enumerated once for each window."""


class Order:
    """The points of `space` in an order that depends on `seed` alone.

    Holds four bytes a point and a window of points, so that a million points do no harm.
    """

    def __init__(self, space: Space, points: int, seed: int) -> None:
        self._space = space
        self._indexes = array("I", range(points))
        random.Random(f"order/{seed}").shuffle(self._indexes)
        self._start = 0
        self._window: list[dict[str, Scalar]] = []

    def __len__(self) -> int:
        return len(self._indexes)

    def at(self, position: int) -> dict[str, Scalar]:
        """The point at `position`; IndexError beyond the last one. Quick where positions are asked for in order."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        if not self._start <= position < self._start + len(self._window):
            self._fill(position)
        return self._window[position - self._start]

    def _fill(self, start: int) -> None:
        wanted = {index: offset for offset, index in enumerate(self._indexes[start : start + _WINDOW])}
        last = max(wanted)
        window: list[dict[str, Scalar]] = [{}] * len(wanted)
        for index, chosen in enumerate(self._space.enumerate()):
            if index in wanted:
                window[wanted[index]] = dict(chosen)
            if index == last:
                break
        self._start, self._window = start, window
