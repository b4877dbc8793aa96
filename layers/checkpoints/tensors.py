"""Tensors by the names of both sides: what of ours is what of theirs, in both directions.

"Ours" are the names and layouts of `layers.modules`, "theirs" those of an architecture of `transformers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from layers.checkpoints.config_json import CheckpointError

Array: TypeAlias = NDArray[np.float32]
Order: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Link:
    """The same numbers on both sides: rows of ours, one tensor after another, are those of theirs.

    Each side gives its tensors with their numbers of rows. `order`: which of our rows each of theirs is; `transposed`:
    theirs have rows and columns exchanged; `offset`: added to ours, it gives theirs; `skipped`: rows of zeros that one
    tensor of theirs has before ours; `copied`: theirs has the numbers twice, of which this is the second time.
    """

    ours: Mapping[str, int]
    theirs: Mapping[str, int]
    order: Order | None = None
    transposed: bool = False
    offset: float = 0.0
    skipped: int = 0
    copied: bool = False

    def to_theirs(self, ours: Mapping[str, Array]) -> dict[str, Array]:
        rows = _joined(ours, self.ours)
        if self.order is not None:
            rows = rows[self.order]
        if self.offset:
            rows = (rows + np.float32(self.offset)).astype(np.float32)
        if self.skipped:
            rows = np.concatenate((np.zeros((self.skipped, *rows.shape[1:]), np.float32), rows))
        parts = _parted(rows, self.theirs)
        return {name: np.ascontiguousarray(part.T) for name, part in parts.items()} if self.transposed else parts

    def to_ours(self, theirs: Mapping[str, Array]) -> dict[str, Array]:
        if self.transposed:
            turned = {name: _found(theirs, name).T for name in self.theirs}
            rows = _joined(turned, {name: len(tensor) for name, tensor in turned.items()})
        else:
            rows = _joined(theirs, self.theirs)[self.skipped :]
        if self.offset:
            rows = (rows - np.float32(self.offset)).astype(np.float32)
        if self.order is not None:
            rows = rows[np.argsort(self.order)]
        return _parted(rows, self.ours)


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor of theirs that is none of ours: it has the same number everywhere, which changes nothing.

    `added_to`: if a checkpoint has other numbers, its first row is added to each row of that tensor of ours. Without
    it other numbers are refused.
    """

    theirs: str
    shape: tuple[int, ...]
    value: float
    added_to: str | None = None


Part: TypeAlias = Link | Constant


def same(ours: str, theirs: str, rows: int, *, offset: float = 0.0) -> Link:
    """One tensor of each side."""
    return Link({ours: rows}, {theirs: rows}, offset=offset)


def export_tensors(
    parts: Iterable[Part], ours: Mapping[str, Array], into: MutableMapping[str, Array] | None = None
) -> MutableMapping[str, Array]:
    """Our weights under their names, in `into` if it is given. Raises CheckpointError if one of ours is not asked
    for, or is missing."""
    found: MutableMapping[str, Array] = {} if into is None else into
    used: set[str] = set()
    for part in parts:
        if isinstance(part, Constant):
            found[part.theirs] = np.full(part.shape, part.value, np.float32)
        else:
            found.update(part.to_theirs(ours))
            used |= part.ours.keys()
    if unused := sorted(ours.keys() - used):
        raise CheckpointError(f"weights that the architecture has no place for: {', '.join(unused[:5])}")
    return found


def import_tensors(
    parts: Iterable[Part],
    theirs: Mapping[str, Array],
    ignored: Callable[[str], bool] = lambda name: False,
    into: MutableMapping[str, Array] | None = None,
) -> MutableMapping[str, Array]:
    """Their weights under our names, in `into` if it is given. Raises CheckpointError if one is missing, or not
    `ignored` and left over."""
    parts = list(parts)
    found: MutableMapping[str, Array] = {} if into is None else into
    used: set[str] = set()
    for part in parts:
        if isinstance(part, Constant):
            used.add(part.theirs)
        elif not part.copied:
            found.update(part.to_ours(theirs))
            used |= part.theirs.keys()
    for part in parts:
        if not isinstance(part, Constant) or part.theirs not in theirs:
            continue
        if part.added_to is not None:
            found[part.added_to] = (found[part.added_to] + theirs[part.theirs][0]).astype(np.float32)
        elif not np.all(theirs[part.theirs] == np.float32(part.value)):
            raise CheckpointError(f"the tensor {part.theirs} is not {part.value:g} everywhere: ours has none")
    if unused := sorted(name for name in theirs.keys() - used if not ignored(name)):
        raise CheckpointError(f"tensors that the configuration does not name: {', '.join(unused[:5])}")
    return found


def _found(tensors: Mapping[str, Array], name: str) -> Array:
    try:
        return tensors[name]
    except KeyError:
        raise CheckpointError(f"the tensor {name} is missing") from None


def _joined(tensors: Mapping[str, Array], rows: Mapping[str, int]) -> Array:
    found = {name: _found(tensors, name) for name in rows}
    for name, tensor in found.items():
        if tensor.ndim == 0 or tensor.shape[0] != rows[name]:
            raise CheckpointError(f"the tensor {name} has the shape {list(tensor.shape)}, not {rows[name]} rows")
    if len(found) == 1:
        return next(iter(found.values()))
    try:
        return np.concatenate(list(found.values()))
    except ValueError:
        raise CheckpointError(f"the tensors {', '.join(found)} differ in their columns") from None


def _parted(rows: Array, sizes: Mapping[str, int]) -> dict[str, Array]:
    if len(sizes) == 1:
        return {next(iter(sizes)): np.ascontiguousarray(rows)}
    ends = np.cumsum(list(sizes.values()))[:-1]
    return {name: np.ascontiguousarray(part) for name, part in zip(sizes, np.split(rows, ends), strict=True)}
