"""Parameters that do not apply, told from the document alone: where other problems leave no space to look for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from layers.declarations.inference.mode import FORWARD, LENGTHS, NOT_OF_FORWARD, TASKS
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


def note_forward_lengths(entries: Iterable[Entry], task: str, problems: Problems) -> bool:
    """Note each length of what is generated, if the document says or leaves out that nothing is. Whether one was."""
    known = {entry.name: entry for entry in entries}
    mode = known.get("inference.mode")
    if mode is not None and (mode.value != FORWARD or mode.when is not None):
        return False
    lengths = [known[name] for name in (f"inference.{length}" for length in LENGTHS) if name in known]
    misfits = [entry for entry in lengths if entry.when is None]
    remedy = "leave it out, or give mode: generate" if task in TASKS else "leave it out"
    for entry in misfits:
        problems.add(entry.pointer, f"{entry.name}: {NOT_OF_FORWARD}", remedy)
    return bool(misfits)


def _outside(condition: Condition, entries: Mapping[str, Entry]) -> Scalar | None:
    """A value at which the condition is false, of a parameter that the document gives at every point."""
    entry = entries.get(condition.path)
    if entry is None or entry.when is not None:
        return None
    given = [entry.value] if entry.opening is None else entry.opening.values
    return next((value for value in given if value is not None and value not in condition.values), None)
