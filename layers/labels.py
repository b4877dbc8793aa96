"""Labels of a worker: what its place or its owner make it fit for, beyond what its device says. `gpu=h100,site=a`."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_LABELS = 16
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""What a key and a value are."""
FORM = "1 to 63 letters, digits, '-', '_' and '.', the first and the last a letter or a digit"


def problem_of(labels: Mapping[str, str]) -> str | None:
    """What is wrong with labels, in words; None if nothing is."""
    if len(labels) > MAX_LABELS:
        return f"{len(labels)} labels: at most {MAX_LABELS}"
    for key, value in labels.items():
        for part in (key, value):
            if NAME.fullmatch(part) is None:
                return f"{part!r} of the label {key}={value} is not {FORM}"
    return None


def parse_labels(text: str) -> dict[str, str]:
    """The labels of `gpu=h100,site=a`; none of an empty text. Raises ValueError, which says what is wrong."""
    labels: dict[str, str] = {}
    for part in text.split(",") if text else ():
        key, separator, value = part.strip().partition("=")
        if not separator:
            raise ValueError(f"{part!r} is not of the form key=value")
        if key in labels:
            raise ValueError(f"the label {key} is given twice")
        labels[key] = value
    if (problem := problem_of(labels)) is not None:
        raise ValueError(problem)
    return labels


def shown_labels(labels: Mapping[str, str]) -> str:
    """`gpu=h100,site=a`, the keys sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def missing_labels(needed: Mapping[str, str], offered: Mapping[str, str]) -> dict[str, str]:
    """Those that are needed and not had, or had with another value."""
    return {key: value for key, value in needed.items() if offered.get(key) != value}
