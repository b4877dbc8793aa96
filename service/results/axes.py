"""Axes of charts: linear or logarithmic, with ticks that people can read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layers.metrics import LARGEST
from layersweep.display import units
from service.common import formatting

LOG_RATIO = 30.0
"""Positive values that spread further than this are drawn on a logarithmic axis."""
NICE_STEPS = (1, 2, 2.5, 5, 10)
"""What neighbouring ticks of a linear axis may differ by, times a power of ten."""


@dataclass(frozen=True, slots=True)
class Tick:
    position: float
    """In the drawing's units."""
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values of one metric to positions from `start` to `end` (in the drawing's units)."""

    name: str
    low: float
    high: float
    log: bool
    start: float
    end: float

    @classmethod
    def over(
        cls,
        name: str,
        values: Sequence[float],
        start: float,
        end: float,
        *,
        log: bool | None = None,
        zero: bool = False,
    ) -> Axis:
        """The axis for `values` (at least one, all finite). `log` None decides by their spread; `zero` begins at 0.

        What is beyond any measurement, as old rows may hold it, lies at the edge.
        """
        low, high = _drawable(min(values)), _drawable(max(values))
        if log is None:
            log = low > 0 and high / low > LOG_RATIO
        if log and low > 0:
            room = max((high / low) ** 0.05, 1.05)
            return cls(name, low / room, high * room, True, start, end)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        bottom = low - room if low < 0 or low - room >= 0 else min(low, 0.0)
        return cls(name, min(0.0, low) if zero else bottom, high + room, False, start, end)

    def at(self, value: float) -> float:
        """The position of a value, to a tenth of a unit."""
        value = _drawable(value)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[Tick]:
        """Four to seven values that are round in the unit of the title."""
        size, _ = self._unit
        values = self._log_values() if self.log else self._linear_values()
        decimals = 0 if self.log or len(values) < 2 else _decimals(values[1] - values[0])
        return [
            Tick(self.at(value * size), f"{value:.{decimals}f}" if decimals else units.number(float(f"{value:.10g}")))
            for value in values
        ]

    @property
    def title(self) -> str:
        """What the axis shows, with the unit of its ticks."""
        _, unit = self._unit
        text = formatting.label(self.name) + (f" ({unit})" if unit else "")
        return f"{text}, log scale" if self.log else text

    @property
    def _unit(self) -> tuple[float, str]:
        """The unit that the ticks are in: the largest that the axis reaches."""
        steps = units.scale(self.name)
        most = max(abs(self.low), abs(self.high))
        return next((step for step in reversed(steps) if most >= step[0]), steps[0])

    def _linear_values(self) -> list[float]:
        size, _ = self._unit
        low, high = self.low / size, self.high / size
        step = _nice_step((high - low) / 5)
        return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]

    def _log_values(self) -> list[float]:
        size, _ = self._unit
        low, high = self.low / size, self.high / size
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            values = [
                mantissa * 10.0**decade
                for decade in decades
                for mantissa in mantissas
                if low <= mantissa * 10.0**decade <= high
            ]
            if len(values) >= 4:
                break
        return values[:: math.ceil(len(values) / 8)]


def _drawable(value: float) -> float:
    """The value, or the nearest that can be reckoned with: its distance from others and its logarithm are floats."""
    return 0.0 if abs(value) < 1 / LARGEST else min(max(value, -LARGEST), LARGEST)


def _nice_step(rough: float) -> float:
    decade = 10.0 ** math.floor(math.log10(rough))
    return next(factor * decade for factor in NICE_STEPS if factor * decade >= rough * 0.999)


def _decimals(step: float) -> int:
    """The decimals that neighbouring ticks need to differ, the same for all of an axis."""
    return next((digits for digits in range(9) if abs(round(step, digits) - step) < step * 1e-6), 9)
