"""A document's own variables: parameters that no model has, for the expressions of others: `variables: {ratio: ...}`.

They are searched, shown and started from as any other, and reach a configuration only through what is derived.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from layers.declarations.model import LATER
from layers.declarations.per_layer import STACKS
from layers.expressions.lexer import BOOLEANS, KEYWORDS
from layers.expressions.names import DECLARED, VARIABLES
from layers.expressions.parser import FUNCTIONS
from layers.metrics import METRICS
from layers.parameter import Parameter, Scalar
from layers.problems import Problems, below, shown
from layers.sections import Section
from layers.space.search_parameters import DEFAULT_SPACE

MAX_LENGTH = 64
"""Characters of a variable's name."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_EXAMPLE = "write for example variables: {ratio: {values: [2, 3, 4]}}"
_OF_PARAMETERS = {part for path in (*DECLARED, *LATER) for part in path.split(".")}
"""The parts of parameters' names: the last one of them may stand for the whole in an expression."""


def read_variables(document: Mapping[Any, Any], problems: Problems) -> dict[str, tuple[Parameter, Any]]:
    """Of each variable that an expression can name, by its full name: its declaration, and what is written of it."""
    if VARIABLES not in document:
        return {}
    written = document[VARIABLES]
    if not isinstance(written, Mapping):
        problems.add(f"/{VARIABLES}", f"{shown(written)} is not a mapping", _EXAMPLE)
        return {}
    found: dict[str, tuple[Parameter, Any]] = {}
    for name, value in cast("Mapping[Any, Any]", written).items():
        pointer = below(f"/{VARIABLES}", name)
        if not isinstance(name, str) or len(name) > MAX_LENGTH or _NAME.fullmatch(name) is None:
            remedy = f"write up to {MAX_LENGTH} letters, digits and _, a letter first"
            problems.add(pointer, f"{shown(name)} is not a variable's name", remedy)
            continue
        if isinstance(value, Mapping) and "derived" in value:
            remedy = f"write the expression where {name} is used"
            problems.add(below(pointer, "derived"), f"{name} is a variable: it is free, not derived", remedy)
        found[f"{VARIABLES}.{name}"] = (_declaration(value), value)
    return found


def check_names(document: Mapping[Any, Any], problems: Problems) -> None:
    """Note every variable whose name means something else, too.

    For documents that enter: one that was accepted has the full names, and stays good if a later version has a
    parameter of such a name.
    """
    written = document.get(VARIABLES)
    for name in cast("Mapping[Any, Any]", written) if isinstance(written, Mapping) else ():
        other = _other_meaning(name)
        if other is not None:
            problems.add(below(f"/{VARIABLES}", name), f"{name} {other}", "choose another name")


def check_used(variables: Mapping[str, Parameter], named: set[str], problems: Problems) -> None:
    """Note every variable that no expression names."""
    for name in variables:
        if name not in named:
            short = name.removeprefix(f"{VARIABLES}.")
            remedy = f'leave it out, or use it: ffn_hidden_size: {{derived: "{short} * hidden_size"}}, for example'
            problems.add(f"/{VARIABLES}/{short}", f"{short} is used in no expression", remedy)


def _other_meaning(name: Any) -> str | None:
    """What a variable's name means already; None if that is nothing."""
    if name in METRICS:
        return "is a metric"
    if name in FUNCTIONS or name in BOOLEANS or name in KEYWORDS:
        return "is a word of the expressions' language"
    if name not in _OF_PARAMETERS and name not in (VARIABLES, "model", *STACKS):
        return None
    path = next((path for path in DECLARED if path == name or path.endswith(f".{name}")), None)
    what = "names sections of parameters" if path is None else "is a parameter" if path == name else f"is {path}"
    return f"{what}: in an expression it could mean either"


def _declaration(written: Any) -> Parameter:
    """What a variable can be, by what is written of it: true or false, a name, an integer, else a number."""
    values = _values(written)
    meaning = "a variable of this sweep document"
    first = values[0] if values else None
    if isinstance(first, bool):
        return Parameter(type="boolean", meaning=meaning)
    if isinstance(first, str):
        names = tuple(value for value in values if isinstance(value, str))
        return Parameter(type="string", meaning=meaning, choices=names)
    whole = all(isinstance(value, int) for value in values)
    return Parameter(type="integer" if whole and values else "number", meaning=meaning)


def _values(written: Any) -> list[Scalar]:
    """The values that are written of a variable, bounds and steps too."""
    if not isinstance(written, Mapping):
        # No declaration recommends a range: the reader says so.
        listed = [] if written == DEFAULT_SPACE else [written]
    else:
        fields = cast("Section", written)
        several = fields.get("values")
        listed = [fields[name] for name in ("value", "min", "max", "step") if name in fields]
        listed += cast("list[Any]", several) if isinstance(several, list) else []
    return [value for value in listed if isinstance(value, bool | int | float | str)]
