"""Remarks on a document that asks for several devices."""

from __future__ import annotations

from collections.abc import Iterator

from layers.parameter import Scalar
from layers.problems import Problem
from layers.space.document import Space
from layers.space.search_parameters import Entry

TP_SIZE = "tp_size"


def device_notes(space: Space) -> Iterator[Problem]:
    """A remark if the space has points that devices share."""
    for entry in space.entries:
        if entry.name == TP_SIZE:
            sizes = _sizes(entry)
            shared = sorted({size for size in sizes if size > 1})
            if shared:
                yield Problem(entry.pointer, _describe_points(shared, len(sizes)), _remedy(shared[-1]))


def _sizes(entry: Entry) -> list[int]:
    """The values that the parameter can have; none of a derived one, which are not known before."""
    given: list[Scalar | None] = list(entry.opening.choices()) if entry.opening is not None else [entry.value]
    return [size for size in given if isinstance(size, int)]


def _describe_points(shared: list[int], of: int) -> str:
    which = "every point" if len(shared) == of else f"the points with {TP_SIZE} {' or '.join(map(str, shared))}"
    return f"{which} is shared by devices" if len(shared) == of else f"{which} are shared by so many devices"


def _remedy(most: int) -> str:
    devices = ",".join(map(str, range(most)))
    return (
        f"start a worker of {most} devices (layersweep worker --devices {devices}); "
        "a target with fewer refuses these points, and measures the others"
    )
