"""The space that is searched: parameters, which of them are present at a point, and which form a group."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from service.scheduling.surrogate.columns import Booleans, Column, Floats, Value

_MAX_REMEMBERED = 1 << 16
_LOOKED_AT = 256
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|(?<=\[)\d+(?=\])")


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What a caller knows of its space, in the order in which parameters are suggested.

    `present` says which parameters a point has, of values for all of them; `deciding` are the parameters on which that
    depends, all of them if it is None. `allowed` says of the values of those that are present whether the point may
    be tried at all.
    """

    distributions: Mapping[str, BaseDistribution]
    present: Callable[[Mapping[str, Value]], Collection[str]] | None = None
    deciding: Sequence[str] | None = None
    allowed: Callable[[Mapping[str, Value]], bool] | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """Points of a space, one a row: codes, and which of them are present. What is absent has any code."""

    codes: Floats
    presence: Booleans

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, rows: NDArray[np.intp] | Booleans | slice) -> Points:
        """Some of them."""
        return Points(self.codes[rows], self.presence[rows])

    def with_more(self, other: Points) -> Points:
        """Further ones too."""
        return Points(np.concatenate([self.codes, other.codes]), np.concatenate([self.presence, other.presence]))

    def keys(self) -> list[bytes]:
        """What tells them apart."""
        told_apart = np.where(self.presence, self.codes, -1.0).astype(np.float32)
        return [row.tobytes() for row in told_apart]


class CodedSpace:
    """A search space whose points are rows of numbers."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.names = list(space.distributions)
        self.columns = [Column(distribution) for distribution in space.distributions.values()]
        self.groups = _groups(space.distributions)
        """Columns of parameters that are the same one of different layers."""
        deciding = self.names if space.deciding is None else space.deciding
        self._deciding = np.array([self.names.index(name) for name in deciding], dtype=np.intp)
        self._remembered: dict[bytes, Booleans] = {}
        self.is_conditional = self._find_conditional()
        """Columns of parameters that some points do not have."""

    def __len__(self) -> int:
        return len(self.columns)

    def encode(self, values: Mapping[str, Value]) -> tuple[Floats, Booleans]:
        """One point as a row of codes and one of presence."""
        presence = np.array([name in values for name in self.names], dtype=np.bool_)
        codes = np.array(
            [
                column.code(values[name]) if name in values else 0.0
                for name, column in zip(self.names, self.columns, strict=True)
            ]
        )
        return codes, presence

    def place(self, numbers: Mapping[str, float]) -> tuple[Floats, Booleans]:
        """The same for numbers of the distributions' own: see `Column.place`."""
        placed = [
            column.place(numbers[name]) if name in numbers else None
            for name, column in zip(self.names, self.columns, strict=True)
        ]
        presence = np.array([code is not None for code in placed], dtype=np.bool_)
        return np.array([code or 0.0 for code in placed]), presence

    def nearest(self, points: Points) -> Points:
        """The points of this space that are nearest to points between and beyond its values."""
        codes = [column.nearest(points.codes[:, index]) for index, column in enumerate(self.columns)]
        return Points(np.stack(codes, axis=1), points.presence)

    def decode(self, codes: Floats, presence: Booleans) -> dict[str, Value]:
        """The values of what is present at one point."""
        return {
            name: column.value(float(code))
            for name, column, code, there in zip(self.names, self.columns, codes, presence, strict=True)
            if there
        }

    def points(self, codes: Floats) -> Points:
        """Points of codes for all parameters, with what is present of each."""
        if self._space.present is None:
            return Points(codes, np.ones(codes.shape, dtype=np.bool_))
        return Points(codes, np.array([self._presence(row) for row in codes], dtype=np.bool_).reshape(codes.shape))

    def is_allowed(self, codes: Floats, presence: Booleans) -> bool:
        """Whether the point may be tried."""
        return self._space.allowed is None or self._space.allowed(self.decode(codes, presence))

    def _find_conditional(self) -> Booleans:
        generator = np.random.default_rng(0)
        drawn = np.stack([column.draw(generator, _LOOKED_AT) for column in self.columns], axis=1)
        return ~np.asarray(self.points(drawn).presence.all(axis=0), dtype=np.bool_)

    def _presence(self, codes: Floats) -> Booleans:
        key = codes[self._deciding].tobytes()
        known = self._remembered.get(key)
        if known is None:
            assert self._space.present is not None
            every = np.ones(len(codes), dtype=np.bool_)
            present = self._space.present(self.decode(codes, every))
            known = np.array([name in present for name in self.names], dtype=np.bool_)
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = known
        return known


def _groups(distributions: Mapping[str, BaseDistribution]) -> list[NDArray[np.intp]]:
    """Parameters whose names differ in the number of a layer alone, and that take the same values."""
    members: dict[tuple[str, str], list[int]] = {}
    for index, (name, distribution) in enumerate(distributions.items()):
        common, found = _NUMBER.subn("*", name, count=1)
        if found and not distribution.single():
            members.setdefault((common, repr(distribution)), []).append(index)
    return [np.array(indices, dtype=np.intp) for indices in members.values() if len(indices) > 1]
