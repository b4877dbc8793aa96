"""How sweeps, trials and other things are named to the client and the command line."""

from __future__ import annotations

import re
from urllib.parse import quote

from layersweep.display.printable import is_printable
from layersweep.errors import InvalidUsageError

LONGEST_NUMBER = 10
"""Digits of a trial's number."""

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


def segment(name: str) -> str:
    """A name as one segment of a path: it must not reach another address."""
    if not name or name in {".", ".."} or any(character in name for character in "/?#\\") or not is_printable(name):
        raise InvalidUsageError(f"{name!r} is not an id or a name")
    return quote(name, safe="")
