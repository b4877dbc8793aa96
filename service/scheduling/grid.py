"""A finite space in a seeded random order: the grid's, and the source of new points when a sampler repeats itself."""

from __future__ import annotations

import random
from array import array
from dataclasses import asdict, dataclass
from weakref import WeakValueDictionary

from layers.parameter import Scalar
from layers.space.document import Space
from service.scheduling.studies import OWN_ATTRIBUTES, Attributes

_permutations: WeakValueDictionary[tuple[int, int], array[int]] = WeakValueDictionary()
"""By the number of points and the seed, which say all about it. Many sweeps have the same seed: they share one."""


@dataclass(frozen=True, slots=True)
class GridProgress:
    """How far a sweep has gone through its grid: what a restarted service needs to go on there."""

    position: int = 0
    """Points of the grid that were passed."""
    exhausted: bool = False
    """No new point can be found any more."""
    drawing: bool = False
    """A new point is being looked for: the next step goes on with that."""

    @staticmethod
    def of(attributes: Attributes) -> GridProgress:
        """As it was kept beside the attributes of a study."""
        kept = {
            name: attributes.get(OWN_ATTRIBUTES + name, default) for name, default in asdict(GridProgress()).items()
        }
        return GridProgress(**kept)

    def changes_since(self, earlier: GridProgress) -> Attributes:
        """What is to be kept anew, by the names under which it is kept."""
        before = asdict(earlier)
        return {OWN_ATTRIBUTES + name: value for name, value in asdict(self).items() if value != before[name]}


class ShuffledGrid:
    """The points of `space` in an order that depends on `seed` alone. Holds four bytes a point, and no point."""

    def __init__(self, space: Space, points: int, seed: int) -> None:
        self._space = space
        self._indexes = _permutation(points, seed)

    def __len__(self) -> int:
        return len(self._indexes)

    def at(self, position: int) -> dict[str, Scalar]:
        """The point at `position`; IndexError beyond the last one. Takes microseconds, wherever the position is."""
        if not 0 <= position < len(self):
            raise IndexError(position)
        return self._space.at(self._indexes[position])


def _permutation(points: int, seed: int) -> array[int]:
    """The indexes of the points, shuffled. Sweeps that began before go on in it: it must never change."""
    found = _permutations.get((points, seed))
    if found is None:
        found = array("I", range(points))
        random.Random(f"order/{seed}").shuffle(found)
        _permutations[points, seed] = found
    return found
