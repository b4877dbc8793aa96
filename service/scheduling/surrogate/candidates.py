"""Points that may be asked next: near those of the front, between them, and anywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.scheduling.surrogate.columns import Floats
from service.scheduling.surrogate.level_first import draw_group, draw_points
from service.scheduling.surrogate.space import CodedSpace, Points

_CROSSED = 0.3
_MOVED_GROUPS = 0.4
_CHANGES = (1.0, 2.0, 4.0, 8.0)
"""How many parameters of a mutant are changed, on average: one of these."""


def candidates(space: CodedSpace, front: Points, *, near: int, anywhere: int, generator: np.random.Generator) -> Points:
    """So many points made of those of the front, and so many drawn level first. No two are the same."""
    drawn = draw_points(space, anywhere, generator)
    if len(front):
        drawn = np.concatenate([children(space, front, near, generator), drawn])
    return distinct(space.points(drawn))


def distinct(points: Points) -> Points:
    """Each point once, where it comes first."""
    first: dict[bytes, int] = {}
    for row, key in enumerate(points.keys()):
        first.setdefault(key, row)
    return points.of(np.fromiter(first.values(), dtype=np.intp))


def children(space: CodedSpace, parents: Points, count: int, generator: np.random.Generator) -> Floats:
    """Codes of mutants and crossovers of the parents, some with whole groups moved."""
    filled = _with_absent_drawn(space, parents, generator)
    codes = filled[generator.integers(len(parents), size=count)]
    others = filled[generator.integers(len(parents), size=count)]
    crossed = (generator.random(count) < _CROSSED)[:, None] & (generator.random(codes.shape) < 0.5)
    codes = np.where(crossed, others, codes)
    rate = generator.choice(_CHANGES, size=count) / codes.shape[1]
    changed = generator.random(codes.shape) < rate[:, None]
    for index, column in enumerate(space.columns):
        rows = np.flatnonzero(changed[:, index])
        near = column.neighbours(codes[rows, index], generator)
        anywhere = column.draw(generator, len(rows))
        codes[rows, index] = np.where(generator.random(len(rows)) < 0.5, near, anywhere)
    for group in space.groups:
        _move_group(space, group, codes, generator)
    return codes


def _move_group(space: CodedSpace, group: NDArray[np.intp], codes: Floats, generator: np.random.Generator) -> None:
    """In some rows, part of a group or all of it goes one step up or down together; in a few its level is drawn."""
    column, members = space.columns[int(group[0])], len(group)
    rows = np.flatnonzero(generator.random(len(codes)) < _MOVED_GROUPS)
    if column.is_category:
        part = generator.random((len(rows), members)) < generator.random((len(rows), 1))
        codes[np.ix_(rows, group)] = np.where(part, column.draw(generator, (len(rows), 1)), codes[np.ix_(rows, group)])
    else:
        part = generator.random((len(rows), members)) < generator.random((len(rows), 1))
        step = generator.choice([-1.0, 1.0], size=(len(rows), 1)) * (0.1 if column.size is None else 1.0)
        most = 1.0 if column.size is None else column.size - 1.0
        codes[np.ix_(rows, group)] = np.clip(codes[np.ix_(rows, group)] + part * step, 0.0, most)
    drawn = rows[generator.random(len(rows)) < 0.1]
    codes[np.ix_(drawn, group)] = draw_group(column, len(drawn), members, generator)


def _with_absent_drawn(space: CodedSpace, points: Points, generator: np.random.Generator) -> Floats:
    """Codes for every parameter: absent ones are drawn, those of a group from its members that are present."""
    codes = np.where(points.presence, points.codes, draw_points(space, len(points), generator))
    for group in space.groups:
        there = points.presence[:, group]
        for row in np.flatnonzero(there.any(axis=1) & ~there.all(axis=1)):
            absent = group[~there[row]]
            codes[row, absent] = generator.choice(codes[row, group[there[row]]], size=len(absent))
    return codes
