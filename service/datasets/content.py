"""What a dataset holds once its file was read: arrays by split, and what models and readers need to know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

SPLIT_NAMES = ("training", "validation", "test")

Arrays = Mapping[str, NDArray[Any]]
"""The arrays of one split by name."""


@dataclass(frozen=True, slots=True)
class Content:
    """A dataset that was read and cut. `counts` says how many tokens or examples each split has."""

    task: str
    tokenizer: str | None
    facts: Mapping[str, Any]
    splits: Mapping[str, Arrays]
    counts: Mapping[str, Mapping[str, int]]
    profile: Callable[[], dict[str, Any]]
    """Calculates the profile, as plain JSON values."""
    notes: Sequence[str] = ()
    """What was done with the file that its owner may not expect, or is missing in a split."""
