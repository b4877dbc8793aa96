"""What the product said when it was recorded, and the comparison with what it says now.

A recording is a text file below `recorded/`. `make golden` writes all of them anew (`LAYERSWEEP_TEST_GOLDEN=record`);
the difference is then reviewed like any other change.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
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
        path.write_bytes(text.encode())
        return
    if not path.exists():
        raise ChangedError(f"nothing is recorded as {name}: run `make golden` if it is new on purpose")
    recorded = path.read_bytes().decode()
    if recorded != text:
        raise ChangedError(_difference(name, recorded, text))


def compare_folder(folder: str, texts: Mapping[str, str], *, variant: str | None = None) -> None:
    """Compare every text with its recording in `folder`, and that nothing else is recorded there.

    A `variant` has recordings of its own in `folder.variant`, but only of those texts that differ from the others'.
    Renewing a variant needs the recordings of `folder`, so it comes after them.
    """
    own = f"{folder}.{variant}"
    places = {name: own if variant and _differs(folder, own, name, text) else folder for name, text in texts.items()}
    changed: list[str] = []
    for name, text in texts.items():
        try:
            compare(f"{places[name]}/{name}", text)
        except ChangedError as error:
            changed.append(str(error))
    expected = {f"{place}/{name}" for name, place in places.items()}
    held = _recorded(own) if variant else _recorded(folder)
    gone = [name for name in held if name not in expected]
    if RENEWS:
        for name in gone:
            (FOLDER / name).unlink()
    elif gone:
        changed.append("recorded, but not seen any more: " + ", ".join(gone))
    if changed:
        raise ChangedError("\n\n".join(changed))


def _differs(folder: str, own: str, name: str, text: str) -> bool:
    if not RENEWS:
        return (FOLDER / own / name).exists()
    return (FOLDER / folder / name).read_bytes().decode().rstrip("\n") != text.rstrip("\n")


def _recorded(folder: str) -> list[str]:
    return sorted(path.relative_to(FOLDER).as_posix() for path in (FOLDER / folder).rglob("*") if path.is_file())


def _difference(name: str, recorded: str, text: str) -> str:
    lines = list(
        difflib.unified_diff(recorded.splitlines(), text.splitlines(), f"recorded/{name}", "now", lineterm="", n=2)
    )
    cut = [f"… and {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
    return "\n".join(
        [*lines[:MOST_LINES], *cut, "Run `make golden` if this is on purpose, and review what it changes."]
    )
