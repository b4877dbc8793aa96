"""A configuration as numbers: what latency, memory and build time depend on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layers.configuration import Configuration
from layers.parameter import Scalar

Floats = NDArray[np.float64]
Described = Mapping[str, float]

_LAYER = re.compile(r"^((?:encoder_)?layers)\.\d+\.")
_BEYOND = 0.1
"""Of the range of a column: so far outside a point is still taken to be like those that were measured."""
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Alias:
    """A column that says in all measured configurations what another one says, or its opposite."""

    column: int
    """Among the encoder's."""
    is_opposite: bool
    low: float
    span: float

    def agrees(self, value: float, encoded: Floats) -> bool:
        """Whether it does in a further configuration, too."""
        place, of_column = (value - self.low) / self.span, float(encoded[self.column])
        return abs((1 - place if self.is_opposite else place) - of_column) <= _SAME


def describe(configuration: Configuration, static: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a configuration, its model's size (`static`: parameter_count, flops) among them.

    Positive numbers are logarithms, a word is 1 under its own name; what a layer has of its own counts by the mean over
    the layers. What is trained, and how, changes nothing here.
    """
    found: dict[str, list[float]] = {}
    for section in ("model", "inference"):
        for name, value in configuration[section].items():
            of_all_layers = _LAYER.sub(r"\1.", name)
            for column, number in _columns(f"{section}.{of_all_layers}", value):
                found.setdefault(column, []).append(number)
    numbers = {column: sum(values) / len(values) for column, values in found.items()}
    return numbers | {name: math.log(max(value, 1.0)) for name, value in static.items()}


def _columns(name: str, value: Scalar | None) -> list[tuple[str, float]]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [(name, float(value))]
    if isinstance(value, str):
        return [(f"{name}={value}", 1.0)]
    return [(name, math.log(value) if value > 0 else float(value))]


@dataclass(frozen=True, slots=True)
class Encoder:
    """The columns that differ among measured configurations, each scaled to 0 to 1. What several say counts once: with
    few configurations each further column makes a prediction less sure."""

    columns: tuple[str, ...]
    fixed: Mapping[str, float]
    """Columns that are the same in all of them."""
    low: Floats
    span: Floats
    aliases: Mapping[str, Alias]
    """Columns that say what one of `columns` says."""

    @classmethod
    def of(cls, measured: Sequence[Described]) -> Encoder:
        """For at least one configuration."""
        names = sorted({name for row in measured for name in row})
        table = np.array([[row.get(name, 0.0) for name in names] for row in measured], dtype=np.float64)
        low, high = table.min(axis=0), table.max(axis=0)
        varies = high - low > _SAME
        kept: list[int] = []
        scaled: list[Floats] = []
        aliases: dict[str, Alias] = {}
        for index in np.flatnonzero(varies).tolist():
            start, width = float(low[index]), float(high[index] - low[index])
            column = (table[:, index] - start) / width
            alike = _alike(column, scaled)
            if alike is None:
                kept.append(index)
                scaled.append(column)
            else:
                aliases[names[index]] = Alias(*alike, start, width)
        return cls(
            columns=tuple(names[index] for index in kept),
            fixed={name: float(low[index]) for index, name in enumerate(names) if not varies[index]},
            low=low[kept],
            span=(high - low)[kept],
            aliases=aliases,
        )

    def encode(self, rows: Sequence[Described]) -> Floats:
        """A row each."""
        table = np.array([[row.get(name, 0.0) for name in self.columns] for row in rows], dtype=np.float64)
        return (table.reshape(len(rows), len(self.columns)) - self.low) / self.span

    def knows(self, row: Described) -> bool:
        """Whether a configuration is like those that were measured: nothing in it is new, or far outside."""
        if any(abs(row.get(name, 0.0) - value) > _SAME for name, value in self.fixed.items()):
            return False
        known = self.fixed.keys() | set(self.columns) | self.aliases.keys()
        if any(value and name not in known for name, value in row.items()):
            return False
        encoded = self.encode([row])
        if not all(alias.agrees(row.get(name, 0.0), encoded[0]) for name, alias in self.aliases.items()):
            return False
        return bool(((encoded >= -_BEYOND) & (encoded <= 1 + _BEYOND)).all())


def _alike(column: Floats, others: Sequence[Floats]) -> tuple[int, bool] | None:
    """The place of another column that says the same, or (True) the opposite; None if there is none."""
    for place, other in enumerate(others):
        for is_opposite in (False, True):
            if np.abs((1 - column if is_opposite else column) - other).max() <= _SAME:
                return place, is_opposite
    return None
