"""What a dataset holds once its file was read: arrays by split, and what models and readers need to know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from service.database.dataset_columns import Facts, Profile, SplitCounts

SPLIT_NAMES = ("training", "validation", "test")

Arrays = Mapping[str, NDArray[Any]]
"""The arrays of one split by name. Those that are mapped from a file last as long as it."""


@dataclass(frozen=True, slots=True)
class Content:
    """A dataset that was read and cut. `counts` says how many tokens or examples each split has."""

    task: str
    tokenizer: str | None
    facts: Facts
    splits: Mapping[str, Arrays]
    counts: Mapping[str, SplitCounts]
    profile: Callable[[], Profile]
    """Calculates the profile."""
    notes: Sequence[str] = ()
    """What was done with the file that its owner may not expect, or is missing in a split."""
    tokenizer_file: Path | None = None
    """The `tokenizer.json` that belongs to it; its hash is among the facts."""
