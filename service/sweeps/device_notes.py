"""Remarks on a document that asks for several devices, or for a model of one."""

from __future__ import annotations

from collections.abc import Iterator

from layers.expressions.constraints import Constraint
from layers.metrics import MODELLED, STATIC
from layers.parameter import Scalar
from layers.problems import Problem
from layers.space.document import Space, SweepDocument
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


def device_model_notes(document: SweepDocument) -> Iterator[Problem]:
    """A remark if `search.device_model` is asked for and has no limits to judge by, or not all of them."""
    if not document.search.get("device_model"):
        return
    pointer = "/search/device_model"
    limits = [each for each in document.constraints if each.stage == "hardware"]
    if document.space.shapes:
        yield Problem(pointer, "it leaves out nothing: the sweep has several shapes", "leave it out, or name one shape")
        return
    unknown = [each.text for each in limits if modelled_metric(each) is None]
    if unknown:
        nothing = "it leaves out nothing: " if len(unknown) == len(limits) else ""
        yield Problem(
            pointer,
            f"{nothing}no point is left out for {', '.join(unknown)}, as a limit must name one modelled metric",
            f"limit one of {', '.join(MODELLED)} too, or leave device_model out",
        )


def modelled_metric(constraint: Constraint) -> str | None:
    """The one metric of the hardware that a constraint names, if it is modelled."""
    measured = [name for name in constraint.metrics if name not in STATIC]
    return measured[0] if len(measured) == 1 and measured[0] in MODELLED else None


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
