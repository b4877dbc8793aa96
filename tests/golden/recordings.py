"""What the product said when it was recorded, and the comparison with what it says now.

A recording is a text file below `recorded/`. `make golden` writes all of them anew (`LAYERSWEEP_TEST_GOLDEN=record`);
the difference is then reviewed like any other change.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "recorded"
RENEWS = os.environ.get("LAYERSWEEP_TEST_GOLDEN") == "record"
MOST_LINES = 60


class ChangedError(AssertionError):
    """Something that users or programs see is not what was recorded."""


def compare(name: str, text: str) -> None:
    """Raise ChangedError where `text` is not what `recorded/{name}` has. Writes it where recordings are renewed."""
    path = FOLDER / name
    text = text if text.endswith("\n") else text + "\n"
    if RENEWS:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    if not path.exists():
        raise ChangedError(f"nothing is recorded as {name}: run `make golden` if it is new on purpose")
    recorded = path.read_text(encoding="utf-8")
    if recorded != text:
        raise ChangedError(_difference(name, recorded, text))


def compare_folder(folder: str, texts: dict[str, str]) -> None:
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


def _recorded(folder: str) -> Iterable[Path]:
    return sorted(path for path in (FOLDER / folder).rglob("*") if path.is_file())


def _difference(name: str, recorded: str, text: str) -> str:
    lines = list(
        difflib.unified_diff(recorded.splitlines(), text.splitlines(), f"recorded/{name}", "now", lineterm="", n=2)
    )
    cut = [f"… and {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
    return "\n".join(
        [*lines[:MOST_LINES], *cut, "Run `make golden` if this is on purpose, and review what it changes."]
    )
