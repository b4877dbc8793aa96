"""Points at random, of a group the level first: layers drawn one by one have a mean that hardly leaves the middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.scheduling.surrogate.columns import Column, Floats
from service.scheduling.surrogate.space import CodedSpace

_REDRAWN_POINTS = 1 / 3
_MOST_REDRAWN = 0.5
"""In so many of the points up to so many of the layers are drawn again, each by itself."""


def draw_points(space: CodedSpace, count: int, generator: np.random.Generator) -> Floats:
    """Codes of random points, one a row, with a code for every parameter."""
    codes = np.stack([column.draw(generator, count) for column in space.columns], axis=1)
    for group in space.groups:
        codes[:, group] = draw_group(space.columns[int(group[0])], count, len(group), generator)
    return codes


def draw_group(column: Column, count: int, members: int, generator: np.random.Generator) -> Floats:
    """Codes of one group's members: a level for all, given to them as evenly as it goes, who gets more is drawn."""
    if column.is_category:
        codes = _shares_of_categories(column, count, members, generator)
    elif column.size is None or column.is_log:
        codes = np.repeat(column.draw(generator, count)[:, None], members, axis=1)
    else:
        total = np.rint(generator.random(count) * (column.size - 1) * members).astype(np.intp)
        codes = (total // members)[:, None] + (_places(count, members, generator) < (total % members)[:, None])
    chance = np.where(generator.random(count) < _REDRAWN_POINTS, _MOST_REDRAWN * generator.random(count), 0.0)
    redrawn = generator.random((count, members)) < chance[:, None]
    return np.where(redrawn, column.draw(generator, (count, members)), codes.astype(np.float64))


def _shares_of_categories(column: Column, count: int, members: int, generator: np.random.Generator) -> Floats:
    """The share of each category first, all shares equally likely; then who has which."""
    shares = generator.dirichlet(np.ones(column.size or 1), count)
    bounds = np.rint(np.cumsum(shares, axis=1) * members)
    places = _places(count, members, generator)
    return (places[:, :, None] >= bounds[:, None, :-1]).sum(axis=2).astype(np.float64)


def _places(count: int, members: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """A permutation of the members in each row."""
    return generator.random((count, members)).argsort(axis=1).argsort(axis=1)
