"""What both databases can store of a JSON value: no NUL character, no half of a surrogate pair, no NaN or infinity."""

from __future__ import annotations

import math
from typing import Any

MAX_INTEGER = 2**63 - 1
MAX_DEPTH = 32


class UnstorableError(ValueError):
    """A part of a JSON value cannot be stored. `path` leads to it: keys and positions."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def check_storable(value: Any, path: tuple[str | int, ...] = ()) -> None:
    """Raise UnstorableError, in words for the caller who sent `value`, if a part of it cannot be stored."""
    if len(path) > MAX_DEPTH:
        raise UnstorableError(path, f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UnstorableError(path, "is not a finite number")
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise UnstorableError(path, f"is an integer beyond {MAX_INTEGER}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(str(key), path)
            check_storable(item, (*path, str(key)))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            check_storable(item, (*path, position))


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    if "\0" in text:
        raise UnstorableError(path, "holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnstorableError(path, "holds half of a surrogate pair, which is no character") from None
