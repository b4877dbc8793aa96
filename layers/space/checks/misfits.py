"""Parameters that do not apply, told from the document alone: where other problems leave no space to look for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from layers.declarations.model import APPLIES
from layers.declarations.rules import Condition
from layers.parameter import Scalar
from layers.problems import Problems, shown
from layers.space.search_parameters import Entry


def note_misfits(entries: Iterable[Entry], decided_by_rules: Collection[str], problems: Problems) -> None:
    """Note each parameter that is given without `when`, and does not apply at every point.

    `decided_by_rules` are parameters that rules name: a rule may exclude the points at which another does not apply.
    """
    known = {entry.name: entry for entry in entries}
    for name, entry in known.items():
        condition = APPLIES.get(name)
        if condition is None or entry.when is not None or entry.default_space or condition.path in decided_by_rules:
            continue
        outside = _outside(condition, known)
        if outside is not None:
            detail = f"{name}: does not apply where {condition.path} is {shown(outside)}"
            problems.add(entry.pointer, detail, f'leave it out, or add when: "{condition}"')


def _outside(condition: Condition, entries: Mapping[str, Entry]) -> Scalar | None:
    """A value at which the condition is false, of a parameter that the document gives at every point."""
    entry = entries.get(condition.path)
    if entry is None or entry.when is not None:
        return None
    given = [entry.value] if entry.opening is None else entry.opening.values
    return next((value for value in given if value is not None and value not in condition.values), None)
