"""The shapes of a document, `inference.shapes`: a mapping of names, or a list if programs keep no order of names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from layers.dataset_facts import DatasetFacts
from layers.declarations.inference.parameters import complete_inference
from layers.declarations.inference.shapes import MAX_SHAPES, NAME, SHAPE_PARAMETERS, SHAPES, NamedShape
from layers.parameter import ParameterError, Scalar
from layers.problems import Problems, below, did_you_mean, shown

MODE = "mode"
"""What of `inference` decides which parameters a shape has."""

POINTER = "/inference/shapes"
_EXAMPLE = "write for example shapes: {chat: {batch_size: 1, sequence_length: 64}, bulk: {batch_size: 32}}"
MAX_NAME = 32
"""Characters of a shape's name."""
_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}", re.ASCII)


def read_shapes(
    inference: Mapping[Any, Any], task: str, facts: DatasetFacts, problems: Problems
) -> dict[str, NamedShape]:
    """The shapes that the section `inference` names, by the pointer of each, in their order; what is wrong with them is
    noted."""
    written, mode = inference[SHAPES], inference.get(MODE)
    if isinstance(mode, Mapping | list):
        problems.add(f"/inference/{MODE}", "the mode is not open where there are shapes", "give forward or generate")
        mode = None
    shared: dict[str, Scalar] = {} if mode is None else {MODE: mode}
    found: dict[str, NamedShape] = {}
    for count, (pointer, name, values) in enumerate(_written(written, problems)):
        if count == MAX_SHAPES:
            problems.add(POINTER, f"more than {MAX_SHAPES} shapes", f"name at most {MAX_SHAPES}")
            break
        shape = _read_one(pointer, name, values, shared, task, facts, problems)
        if shape is None:
            continue
        for other in found.values():
            if other.name == shape.name:
                problems.add(pointer, f"{shape.name} is given twice", "leave one of them out")
            elif other.values == shape.values:
                problems.add(pointer, f"{shape.name} is the same shape as {other.name}", "leave one of them out")
        found[pointer] = shape
    return found


def _written(written: Any, problems: Problems) -> Iterator[tuple[str, object, Any]]:
    """Of each shape that is written its pointer, its name and its parameters."""
    if not isinstance(written, Mapping | list) or not written:
        what = "no shape is named" if isinstance(written, Mapping | list) else f"{shown(written)} is not a mapping"
        problems.add(POINTER, what, _EXAMPLE)
        return
    if isinstance(written, Mapping):
        for name, values in cast("Mapping[Any, Any]", written).items():
            yield below(POINTER, name), name, values
        return
    for index, item in enumerate(cast("list[Any]", written)):
        pointer = below(POINTER, index)
        if isinstance(item, Mapping):
            fields = dict(cast("Mapping[Any, Any]", item))
            yield pointer, fields.pop(NAME, None), fields
        else:
            problems.add(pointer, f"{shown(item)} is not a shape", "write {name: chat, batch_size: 1}")


def _read_one(
    pointer: str,
    name: object,
    values: Any,
    shared: Mapping[str, Scalar],
    task: str,
    facts: DatasetFacts,
    problems: Problems,
) -> NamedShape | None:
    before = len(problems)
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        remedy = f"write up to {MAX_NAME} letters, digits and _, a letter first: metrics are named latency_ms_p50@chat"
        problems.add(pointer, f"{shown(name)} is not a shape's name", remedy)
    if not isinstance(values, Mapping):
        problems.add(pointer, f"{shown(values)} is not a shape", "write {batch_size: 1, sequence_length: 64}")
        return None
    given = cast("Mapping[Any, Any]", values)
    for key, value in given.items():
        if key not in SHAPE_PARAMETERS:
            remedy = did_you_mean(str(key), SHAPE_PARAMETERS)
            problems.add(below(pointer, key), f"{shown(key)} is not a parameter of a shape", remedy)
        elif isinstance(value, Mapping | list):
            detail = f"{key} is not open in a shape: each trial is measured at the same ones"
            problems.add(below(pointer, key), detail, "give an integer")
    if len(problems) > before:
        return None
    try:
        completed = complete_inference({**cast("Mapping[str, Scalar]", given), **shared}, task, facts)
    except ParameterError as error:
        named = error.path.rpartition(".")[2]
        place = below("/inference" if named in shared else pointer, named)
        problems.add(place, error.message, error.remedy)
        return None
    return NamedShape(cast("str", name), {key: completed[key] for key in SHAPE_PARAMETERS if key in completed})
