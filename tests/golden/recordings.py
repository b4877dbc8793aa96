"""What the product said when it was recorded, and the comparison with what it says now.

A recording is a text file below `recorded/`. `make golden` writes all of them anew (`LAYERSWEEP_TEST_GOLDEN=record`);
the difference is then reviewed like any other change.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "recorded"
RENEWS = os.environ.get("LAYERSWEEP_TEST_GOLDEN") == "record"
MOST_LINES = 60
MOST_CHARACTERS = 240
"""How much of a difference, and of each of its lines, is shown."""

_renewed: set[str] = set()
"""What was recorded in this run: the same answer on the other database is compared with it."""


class ChangedError(AssertionError):
    """Something that users or programs see is not what was recorded."""


def compare(name: str, text: str) -> None:
    """Raise ChangedError where `text` is not what `recorded/{name}` has. Writes it where recordings are renewed."""
    path = FOLDER / name
    text = text if text.endswith("\n") else text + "\n"
    if RENEWS and name not in _renewed:
        _renewed.add(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return
    if not path.exists():
        raise ChangedError(f"nothing is recorded as {name}: run `make golden` if it is new on purpose")
    recorded = path.read_bytes().decode()
    if recorded != text:
        raise ChangedError(difference(name, recorded, text))


def compare_folder(folder: str, texts: Mapping[str, str]) -> None:
    """Compare every text with its recording in `folder`, and that nothing else is recorded there."""
    changed: list[str] = []
    for name, text in texts.items():
        try:
            compare(f"{folder}/{name}", text)
        except ChangedError as error:
            changed.append(str(error))
    gone = [path for path in _recorded(folder) if path.relative_to(FOLDER / folder).as_posix() not in texts]
    if RENEWS:
        for path in gone:
            path.unlink()
    elif gone:
        changed.append("recorded, but not seen any more: " + ", ".join(path.name for path in gone))
    if changed:
        raise ChangedError("\n\n".join(changed))


def difference(name: str, recorded: str, text: str) -> str:
    """What changed, as people read it, and what to do about it."""
    old, new = (each.splitlines() for each in (recorded, text))
    lines = list(_cut(difflib.unified_diff(old, new, f"recorded/{name}", "now", lineterm="", n=2)))
    more = [f"… and {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
    return "\n".join(
        [*lines[:MOST_LINES], *more, "Run `make golden` if this is on purpose, and review what it changes."]
    )


def _recorded(folder: str) -> list[Path]:
    return sorted(path for path in (FOLDER / folder).rglob("*") if path.is_file())


def _cut(lines: Iterable[str]) -> Iterator[str]:
    """Long lines begin a little before what is different, and end soon after it."""
    removed: list[str] = []
    for line in lines:
        same = 0
        if line.startswith("-"):
            removed.append(line)
        elif line.startswith("+") and removed:
            same = _common(removed.pop(0)[1:], line[1:])
        else:
            removed.clear()
        if len(line) <= MOST_CHARACTERS:
            yield line
        elif same > MOST_CHARACTERS // 2:
            yield f"{line[0]}…{line[same - 40 : same + MOST_CHARACTERS - 40]}"
        else:
            yield line[:MOST_CHARACTERS] + "…"


def _common(old: str, new: str) -> int:
    pairs = zip(old, new, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))
