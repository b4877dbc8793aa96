"""How data is split: by shares of a text's length, or example by example, what belongs together staying so."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.common.formatting import plural
from service.errors import UnprocessableError

MINIMUM_TRAINING_EXAMPLES = 16
MINIMUM_EXAMPLES = 4
"""Of the validation split, and of the test split if there is one."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fractions:
    """The shares of the data that are held out; training takes what is left."""

    validation: float
    test: float = 0.0

    def check(self) -> None:
        """Raise UnprocessableError unless every split can be there and training keeps at least half."""
        if not 0 < self.validation <= 0.5:
            raise UnprocessableError(
                f"validation={self.validation:g}: give a fraction above 0 and at most 0.5, such as 0.1"
            )
        if not 0 <= self.test <= 0.5:
            raise UnprocessableError(f"test={self.test:g}: give a fraction from 0 (no test split) to 0.5")
        if self.validation + self.test > 0.5:
            raise UnprocessableError(
                f"validation and test take {self.validation + self.test:.0%} of the data: "
                "leave at least half of it to train on"
            )

    def held_out(self) -> dict[str, float]:
        """The splits beside training that there are to be, with their shares."""
        return {"validation": self.validation} | ({"test": self.test} if self.test else {})


def split_examples(strata: NDArray[Any], keys: Sequence[bytes], fractions: Fractions) -> dict[str, Indices]:
    """The examples of each split, as ascending indices.

    Each stratum is cut in the same shares, and examples of a stratum with the same key are never cut apart: a copy of
    an example, or another answer to it, does not leak into the split that judges. Which split a key falls into follows
    from its SHA-256 alone, so the same data is cut the same way in whatever order it comes.
    Raises UnprocessableError if a split would have too few examples.
    """
    fractions.check()
    shares = fractions.held_out()
    owed = dict.fromkeys(shares, 0.0)
    taken: dict[str, list[int]] = {split: [] for split in ("training", *shares)}
    for members in _members(strata):
        groups = deque(_groups(members, keys))
        for split, share in shares.items():
            # What rounding left owing in one stratum, the next ones pay: rare classes are not all lost to training.
            owed[split] += share * len(members)
            while len(groups) > 1 and len(groups[0]) / 2 <= owed[split]:
                group = groups.popleft()
                owed[split] -= len(group)
                taken[split] += group
        taken["training"] += [index for group in groups for index in group]
    _check_sizes({split: len(indices) for split, indices in taken.items()}, len(keys))
    return {split: np.array(sorted(indices), np.int64) for split, indices in taken.items()}


def _members(strata: NDArray[Any]) -> list[Indices]:
    order = np.argsort(strata, kind="stable")
    return [each for each in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1) if len(each)]


def _groups(members: Indices, keys: Sequence[bytes]) -> list[list[int]]:
    by_key: dict[bytes, list[int]] = {}
    for index in members.tolist():
        by_key.setdefault(keys[index], []).append(index)
    return [by_key[key] for key in sorted(by_key, key=lambda key: hashlib.sha256(key).digest())]


def _check_sizes(sizes: Mapping[str, int], count: int) -> None:
    for split, size in sizes.items():
        minimum = MINIMUM_TRAINING_EXAMPLES if split == "training" else MINIMUM_EXAMPLES
        if size < minimum:
            raise UnprocessableError(
                f"the file is too small: of its {plural(count, 'example')} the {split} split has {size}, "
                f"and needs at least {minimum} (what has the same key stays together)"
            )
