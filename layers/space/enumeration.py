"""Every point of a list of entries, one at a time; and one at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

from layers.parameter import Scalar
from layers.space.evaluation import PointError, evaluate_entry, is_present
from layers.space.search_parameters import Entry

MAX_POINTS = 10**6
"""Up to here points are counted and enumerated."""

Entries = tuple[Entry, ...]
Walked = tuple[dict[str, Scalar], dict[str, PointError]]
"""Values by name, and the derived values that could not be had there."""


class Walker:
    """Walks every point of `entries`, which come after what they depend on. `defaults` is where each point begins."""

    def __init__(self, entries: Entries, defaults: Mapping[str, Scalar]) -> None:
        self._entries = entries
        self._defaults = defaults
        self._environment = dict(defaults)
        self._errors: dict[str, PointError] = {}
        self._stack: list[Iterator[Scalar | None]] = []
        """For each entry that has been entered, the options it still has."""

    def walk(self) -> Iterator[Walked]:
        """Every point. What is yielded is the walker's own, and changes with the next step."""
        while True:
            if len(self._stack) == len(self._entries):
                yield self._environment, self._errors
            else:
                entry = self._entries[len(self._stack)]
                self._stack.append(_options(entry, self._environment, self._errors))
                if self._advance():
                    continue
            while self._stack and not self._advance():
                self._stack.pop()
            if not self._stack:
                return

    def _advance(self) -> bool:
        """Give the newest entry its next option; False if it has none left."""
        entry = self._entries[len(self._stack) - 1]
        self._environment.pop(entry.name, None)
        for option in self._stack[-1]:
            if entry.derived is not None and option is not None:
                self._errors.pop(entry.name, None)
                error = evaluate_entry(entry, self._environment)
                if error is not None:
                    self._errors[entry.name] = error
            elif option is not None:
                self._environment[entry.name] = option
            return True
        self._errors.pop(entry.name, None)
        return False


def _options(entry: Entry, environment: Mapping[str, Scalar], errors: dict[str, PointError]) -> Iterator[Scalar | None]:
    """What an entry can be if `environment` holds all before it: its choices, its value, or None for absent."""
    if not is_present(entry, environment, errors):
        return iter((None,))
    if entry.opening is not None:
        return entry.opening.choices()
    return iter((True if entry.derived is not None else entry.value,))


def draw(entries: Entries, defaults: Mapping[str, Scalar], source: random.Random) -> Walked:
    """One point at random: entry by entry, each by itself."""
    environment = dict(defaults)
    errors: dict[str, PointError] = {}
    for entry in entries:
        if entry.when is not None and not is_present(entry, environment, errors):
            continue
        if entry.opening is not None:
            environment[entry.name] = entry.opening.draw(source)
        else:
            error = evaluate_entry(entry, environment)
            if error is not None:
                errors[entry.name] = error
    return environment, errors


def expression_characters(entries: Entries) -> int:
    """How long the conditions and derivations are, all together: they are calculated at every point."""
    expressions = [each for entry in entries for each in (entry.when, entry.derived) if each is not None]
    return sum(len(expression.text) for expression in expressions)


def with_needs(entries: tuple[Entry, ...], names: Iterable[str]) -> tuple[Entry, ...]:
    """Those of `entries` that are named, and what their conditions and derivations depend on."""
    needed = set(names)
    for entry in reversed(entries):
        if entry.name in needed:
            for expression in (entry.when, entry.derived):
                needed.update(expression.names if expression is not None else ())
    return tuple(entry for entry in entries if entry.name in needed)
