"""Values as JSON has them: those of Python, and what behaves like them (numpy's numbers, paths, tuples, enums)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeAlias, cast

from layersweep.errors import InvalidUsageError

JsonObject: TypeAlias = dict[str, Any]
"""An object of JSON whose members nobody fixed: they are what a document, a profile or another service says."""


def plain(value: Any, what: str = "the document") -> Any:
    """`value` in JSON's own types. Raises InvalidUsageError with the place of what JSON cannot say, NaN included."""
    try:
        return _plain(value, "", what)
    except RecursionError as problem:
        raise InvalidUsageError(
            f"{what} cannot be written as JSON: it is nested too deeply, or holds itself"
        ) from problem


def _plain(value: Any, place: str, what: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, place, what)
    if isinstance(value, str):
        return _text(value, place, what)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(place, what, f"{value}, and JSON has no such number")
        return float(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_name(name, place, what): _plain(item, f"{place}/{name}", what) for name, item in items}
    if isinstance(value, os.PathLike):
        return _text(str(cast("os.PathLike[str]", value)), place, what)
    if isinstance(value, list | tuple | range):
        return [_plain(item, f"{place}/{at}", what) for at, item in enumerate(cast("Iterable[Any]", value))]
    if hasattr(value, "tolist"):
        # Arrays and their scalars, of numpy, pandas or torch, are known by this: none of them need be installed.
        return _plain(value.tolist(), place, what)
    raise _refused(place, what, f"a {type(value).__name__}: write a number, a text, a list or a mapping")


def _name(name: Any, place: str, what: str) -> str:
    found = name.value if isinstance(name, Enum) else name
    if isinstance(found, str):
        return _text(found, place, what)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(int(found))
    raise _refused(place, what, f"a mapping with the name {name!r}: names are text")


def _text(text: str, place: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused(place, what, f"{text!r}, which is no Unicode text") from None
    return str(text)


def _refused(place: str, what: str, why: str) -> InvalidUsageError:
    return InvalidUsageError(f"{what} cannot be written as JSON: {place or 'it'} is {why}")
