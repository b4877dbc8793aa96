"""How sweeps, trials and other things are named to the client and the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote

from layersweep.display.printable import is_printable
from layersweep.errors import InvalidUsageError

LONGEST_NUMBER = 10
"""Digits of a trial's number."""

MOST_SEARCHED = 1_000
"""Sweeps among which one of the same name is looked for in another project."""

_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


def is_id(text: str) -> bool:
    """Whether a text looks like the id of a sweep or a trial."""
    return _ID.fullmatch(text.upper()) is not None


def split_trial(trial: str) -> tuple[str, int | None]:
    """The sweep and the number that "SWEEP/NUMBER" names; the id and None for an id. Raises InvalidUsageError."""
    sweep, separator, number = trial.rpartition("/")
    if separator and sweep and number.isascii() and number.isdigit() and len(number) <= LONGEST_NUMBER:
        return sweep, int(number)
    if trial.isascii() and trial.isdigit() and not is_id(trial):
        raise InvalidUsageError(f"{trial} is a number in some sweep: name the sweep, too, as in NAME/{trial}")
    return trial, None


def newest_of_name(sweeps: Iterable[Mapping[str, Any]], name: str) -> str | None:
    """The id of the first sweep of this name; None if there is none.

    Raises InvalidUsageError if several projects have one: which of them is meant must be said.
    """
    named = [each for each in islice(sweeps, MOST_SEARCHED) if each["name"] == name]
    projects = sorted({str(each["project"]) for each in named})
    if len(projects) > 1:
        raise InvalidUsageError(
            f"the projects {' and '.join(projects)} each have a sweep {name!r}: give its id, or set LAYERSWEEP_PROJECT"
        )
    return str(named[0]["id"]) if named else None


def segment(name: str) -> str:
    """A name as one segment of a path: it must not reach another address."""
    if not name or name in {".", ".."} or any(character in name for character in "/?#\\") or not is_printable(name):
        raise InvalidUsageError(f"{name!r} is not an id or a name")
    return quote(name, safe="")
