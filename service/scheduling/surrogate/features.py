"""What models see of points: parameters that stand alone, groups as means over their layers, and each layer weakly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.scheduling.surrogate.columns import Booleans, Column, Floats
from service.scheduling.surrogate.space import CodedSpace, Points

_ABSENT = 0.5
"""Where an absent parameter is put: in the middle of its scale, with a feature of its own that says so."""
_CROWDED = 0.03
"""Points so near to each other are hardly different, in columns whose whole scale is 1."""


@dataclass(frozen=True, slots=True)
class Features:
    """`whole` has a scale of its own for each column, `layers` are the single members of groups."""

    whole: Floats
    layers: Floats

    def __len__(self) -> int:
        return len(self.whole)

    def of(self, rows: NDArray[np.intp] | Booleans | slice) -> Features:
        """Those of some points."""
        return Features(self.whole[rows], self.layers[rows])

    def with_more(self, other: Features) -> Features:
        """Those of further points too."""
        return Features(
            np.concatenate([self.whole, other.whole]),
            np.concatenate([self.layers, other.layers]),
        )


def features(space: CodedSpace, points: Points) -> Features:
    """The features of points; their number depends on the space alone."""
    grouped = {int(index) for group in space.groups for index in group}
    whole: list[Floats] = []
    layers: list[Floats] = []
    for index, column in enumerate(space.columns):
        scaled = _scaled(column, points.codes[:, index])
        there = points.presence[:, index]
        seen = np.where(there[:, None], scaled, _ABSENT)
        if index in grouped:
            layers.append(seen)
        else:
            whole.append(seen)
            if space.is_conditional[index]:
                whole.append(there[:, None].astype(np.float64))
    for group in space.groups:
        column = space.columns[int(group[0])]
        scaled = np.stack([_scaled(column, points.codes[:, index]) for index in group], axis=1)
        whole.append(_means(scaled, points.presence[:, group]))
        if space.is_conditional[group].all():
            whole.append(_any_of(points.presence[:, group])[:, None].astype(np.float64))
    nothing = np.empty((len(points), 0))
    return Features(np.concatenate([*whole, nothing], axis=1), np.concatenate([*layers, nothing], axis=1))


def crowding(some: Features, others: Features) -> Floats:
    """How many of the others each point has close by, layers aside."""
    return np.exp(-0.5 * squared_distances(some.whole, others.whole) / _CROWDED**2).sum(axis=1)


def squared_distances(left: Floats, right: Floats) -> Floats:
    """Between the rows of one and those of the other."""
    squares = (-2 * left) @ right.T
    squares += (left**2).sum(axis=1)[:, None]
    squares += (right**2).sum(axis=1)[None, :]
    return np.maximum(squares, 0.0, out=squares)


def _scaled(column: Column, codes: Floats) -> Floats:
    """Columns of a parameter: its position, or one for each category. Two categories lie 1 apart."""
    if not column.is_category or column.size == 2:
        return column.positions(codes)[:, None]
    return (codes[:, None] == np.arange(column.size or 0)) / np.sqrt(2.0)


def _any_of(presence: Booleans) -> Booleans:
    return np.asarray(presence.any(axis=1), dtype=np.bool_)


def _means(scaled: Floats, presence: Booleans) -> Floats:
    there = presence[:, :, None]
    count = np.maximum(presence.sum(axis=1), 1)[:, None]
    return np.where(_any_of(presence)[:, None], (scaled * there).sum(axis=1) / count, _ABSENT)
