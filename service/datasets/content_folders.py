"""Folders named by the hash of what is in them, which every row with that hash shares, in whichever project."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.database.retries import retry_if_taken
from service.errors import ConflictError

Stored = TypeVar("Stored")
Answer = TypeVar("Answer")

INCOMING = "incoming-"
"""How a folder beside them begins whose content is being written or removed: one that is old was left by a process that
was killed."""


def store_with_row(
    write: Callable[[], Stored],
    insert: Callable[[Stored], Answer],
    is_stored: Callable[[Stored], bool],
    remove: Callable[[], None],
) -> Answer:
    """Write a folder, then insert the row that names it, given what `write` returned; the answer is that of `insert`.

    If `insert` raises ConflictError, `remove` takes the folder away unless another row needs it. If the same content
    was deleted meanwhile, with its folder, it is written again.
    """
    stored = write()
    try:
        answer = retry_if_taken(lambda: insert(stored))
    except ConflictError:
        remove()
        raise
    if not is_stored(stored):
        write()
    return answer


def remove_unless_needed(place: Path, is_needed: Callable[[], bool]) -> None:
    """Remove a folder whose last row is gone. `is_needed`: asks whether a row names it.

    The folder is moved away before that is asked again. So whoever stores the same content at this moment is found by
    the question, and the folder comes back; or finds no folder, and writes it again.
    """
    if not place.is_dir() or is_needed():
        return
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=INCOMING) as removed:
        moved = Path(removed) / place.name
        try:
            place.replace(moved)
        except FileNotFoundError:
            # Another process removes it.
            return
        keeps = True
        try:
            keeps = is_needed()
        finally:
            if keeps:
                # If it cannot be moved back, the same content was written again.
                with contextlib.suppress(OSError):
                    moved.replace(place)
