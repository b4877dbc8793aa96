"""Where the values of a written document stand: JSON pointers to lines and columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from service.sweeps import documents


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of one line of a text."""

    line: int
    """From 1."""
    column: int
    """Characters before it in its line."""
    end_column: int | None
    """Characters of its line up to its end; None: to the end of the line."""


def places(text: str) -> dict[str, Place]:
    """Where each value of a YAML or JSON document stands, by its JSON pointer: the value, or its name if it has
    several lines. Of a text that is neither: where reading it ended, under ""."""
    found: dict[str, Place] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return {"": Place(mark.line + 1, mark.column, None)} if mark else {}
    except (yaml.YAMLError, RecursionError):
        return found
    if root is not None:
        _mark(root, "", found)
    return found


def nearest(found: Mapping[str, Place], pointer: str) -> Place | None:
    """The place of a value, or of the nearest one around it that is written."""
    while pointer and pointer not in found:
        pointer = pointer.rpartition("/")[0]
    return found.get(pointer)


def _mark(node: yaml.Node, pointer: str, found: dict[str, Place]) -> None:
    if len(found) > documents.MAX_NODES or pointer.count("/") > documents.MAX_DEPTH:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{pointer}/{str(key.value).replace('~', '~0').replace('/', '~1')}"
            found[below] = _place(value if _has_one_line(key, value) else key)
            _mark(value, below, found)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            below = f"{pointer}/{index}"
            found[below] = _place(value)
            _mark(value, below, found)


def _has_one_line(key: yaml.Node, value: yaml.Node) -> bool:
    """Whether a value stands behind its name: not below it, not empty, and not over several lines."""
    start, end = value.start_mark, value.end_mark
    return start.line == end.line == key.start_mark.line and start.column < end.column


def _place(node: yaml.Node) -> Place:
    start, end = node.start_mark, node.end_mark
    return Place(start.line + 1, start.column, end.column if end.line == start.line else None)
