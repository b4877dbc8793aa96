"""The points of a finite space by their index: how many there are, and which one stands where, without a walk.

The order is that of `layers.space.enumeration`. Parameters that no condition depends on multiply, as the digits of a
number do; the others branch. Branches that look alike to all conditions after them have the same points, which are
counted once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

from layers.parameter import Scalar
from layers.space.enumeration import MAX_POINTS, Entries, expression_characters, with_needs
from layers.space.evaluation import PointError, evaluate_entry, is_present
from layers.space.search_parameters import OpenParameter

MOST_WORK = 3 * MAX_POINTS
"""Branches that are looked at while points are counted, each weighed by what its conditions take to calculate."""
SMALL = 64
"""Beyond the first ALWAYS_KEPT, branches of fewer points are counted again rather than kept."""
ALWAYS_KEPT = 10_000

State = tuple[Scalar | None, ...]
"""What the conditions from some entry on see of the entries before it; None if one is absent."""


class TooManyPointsError(Exception):
    """There are more than MAX_POINTS points, or they take too long to count."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Entries from one branch to the next, at one state."""

    digits: Sequence[OpenParameter]
    """Those that are present and multiply."""
    environment: dict[str, Scalar]
    branch: int
    """The entry that branches next; the number of entries if none does."""


class PointIndex:
    """Of `entries`, which come after what they depend on. `defaults` is where each point begins.

    Raises TooManyPointsError, and ValueError if a parameter is continuous. Threads may share it.
    """

    def __init__(self, entries: Entries, defaults: Mapping[str, Scalar]) -> None:
        controlling = {name for entry in entries if entry.when is not None for name in entry.when.names}
        steps = {entry.name for entry in with_needs(entries, controlling)}
        self._entries = tuple(entry for entry in entries if entry.opening is not None or entry.name in steps)
        self._branches = tuple(entry.opening is not None and entry.name in steps for entry in self._entries)
        self._sizes = {entry.name: _size_of(entry.opening) for entry in self._entries if entry.opening is not None}
        self._defaults = dict(defaults)
        self._seen = tuple(_seen_from(start, self._entries) for start in range(len(self._entries) + 1))
        self._ends: dict[tuple[int, State], Sequence[int]] = {}
        """By entry and state: of each option of the next branch, how many points it and those before it have."""
        self._visits_left = MOST_WORK / (1 + expression_characters(entries) / 200)
        self.points = self._count(0, ())
        # Only to count is much: to find one point, a way through the branches is gone.
        self._visits_left = inf

    def at(self, index: int) -> dict[str, Scalar]:
        """The chosen values of the point before which the walk meets `index` others. Raises IndexError."""
        if not 0 <= index < self.points:
            raise IndexError(index)
        chosen: dict[str, Scalar] = {}
        start, state = 0, ()
        while True:
            stretch = self._stretch(start, state)
            ends = self._ends_of(start, state, stretch)
            weight = ends[-1] * prod(self._sizes[opening.name] for opening in stretch.digits)
            for opening in stretch.digits:
                weight //= self._sizes[opening.name]
                digit, index = divmod(index, weight)
                chosen[opening.name] = opening.choice(digit)
            if stretch.branch == len(self._entries):
                return chosen
            option = bisect_right(ends, index)
            index -= ends[option - 1] if option else 0
            start = stretch.branch + 1
            opening = self._opening(stretch.branch)
            chosen[opening.name] = opening.choice(option)
            stretch.environment[opening.name] = chosen[opening.name]
            state = self._state(start, stretch.environment)

    def _count(self, start: int, state: State) -> int:
        """How many points there are from the entry `start` on."""
        self._visits_left -= 1
        if self._visits_left < 0:
            raise TooManyPointsError
        stretch = self._stretch(start, state)
        points = self._ends_of(start, state, stretch)[-1] * prod(self._sizes[each.name] for each in stretch.digits)
        if points > MAX_POINTS:
            raise TooManyPointsError
        return points

    def _ends_of(self, start: int, state: State, stretch: _Stretch) -> Sequence[int]:
        if stretch.branch == len(self._entries):
            return (1,)
        ends = self._ends.get((start, state))
        if ends is None:
            ends = array("I", self._counted(stretch))
            if ends[-1] >= SMALL or len(self._ends) < ALWAYS_KEPT:
                self._ends[start, state] = ends
        return ends

    def _counted(self, stretch: _Stretch) -> Iterator[int]:
        name, environment, after = self._entries[stretch.branch].name, stretch.environment, stretch.branch + 1
        counts: dict[State, int] = {}
        total = 0
        for option in self._opening(stretch.branch).choices():
            environment[name] = option
            state = self._state(after, environment)
            if state not in counts:
                counts[state] = self._count(after, state)
            total += counts[state]
            if total > MAX_POINTS:
                raise TooManyPointsError
            yield total

    def _stretch(self, start: int, state: State) -> _Stretch:
        """Go on from the entry `start` to the next one that branches."""
        environment = dict(self._defaults)
        seen = zip(self._seen[start], state, strict=True)
        environment.update((name, value) for name, value in seen if value is not None)
        digits: list[OpenParameter] = []
        errors: dict[str, PointError] = {}
        for number in range(start, len(self._entries)):
            entry = self._entries[number]
            if not is_present(entry, environment, errors):
                continue
            if self._branches[number]:
                return _Stretch(digits, environment, number)
            if entry.opening is not None:
                digits.append(entry.opening)
            else:
                evaluate_entry(entry, environment)
        return _Stretch(digits, environment, len(self._entries))

    def _state(self, start: int, environment: Mapping[str, Scalar]) -> State:
        return tuple([environment.get(name) for name in self._seen[start]])

    def _opening(self, number: int) -> OpenParameter:
        opening = self._entries[number].opening
        assert opening is not None
        return opening


def indexed(entries: Entries, defaults: Mapping[str, Scalar]) -> PointIndex | None:
    """The index of the points; None if one is continuous, there are more than MAX_POINTS, or counting takes long."""
    if any(entry.opening is not None and entry.opening.size is None for entry in entries):
        return None
    try:
        return PointIndex(entries, defaults)
    except TooManyPointsError:
        return None


def _size_of(opening: OpenParameter) -> int:
    if opening.size is None:
        raise ValueError(f"{opening.name} is continuous")
    return opening.size


def _seen_from(start: int, entries: Entries) -> tuple[str, ...]:
    """The names of entries before `start` that the conditions and derivations from there on need."""
    expressions = [each for entry in entries[start:] for each in (entry.when, entry.derived) if each is not None]
    needed = {name for expression in expressions for name in expression.names}
    return tuple(entry.name for entry in entries[:start] if entry.name in needed)
