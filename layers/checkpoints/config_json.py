"""config.json of a checkpoint: its values, checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is not one that Layersweep can build."""


class ConfigJson:
    """Values of config.json by name. Every reader raises CheckpointError for what is missing or of another type."""

    def __init__(self, values: Mapping[str, Json], place: str = "config.json") -> None:
        self._values = values
        self._place = place

    def has(self, name: str) -> bool:
        """Whether it is given, and is not null."""
        return self._values.get(name) is not None

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, "an integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(name, value, "a number")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._given(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._given(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, value, "text")
        return value

    def section(self, name: str) -> ConfigJson:
        """The mapping under `name`; an empty one if it is not given."""
        value = self._values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self._wrong(name, value, "a mapping")
        return ConfigJson(cast("Mapping[str, Json]", value), f"{self._place}: {name}")

    def items(self, name: str) -> Sequence[Json]:
        """The list under `name`; an empty one if it is not given."""
        value = self._values.get(name)
        if value is None:
            value = []
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(name, value, "a list")
        return value

    def names(self) -> list[str]:
        """The names of everything that is given."""
        return list(self._values)

    def refuse(self, name: str, neutral: Json, why: str) -> None:
        """Raise CheckpointError if a value is given that changes what the model computes in a way that is not
        built."""
        value = self._values.get(name)
        if value is not None and value != neutral:
            raise CheckpointError(f"{self._place}: {name} is {value!r}: {why}")

    def _given(self, name: str, default: Json) -> Json:
        value = self._values.get(name)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(f"{self._place}: {name} is missing")
        return value

    def _wrong(self, name: str, value: Json, expected: str) -> CheckpointError:
        return CheckpointError(f"{self._place}: {name} is {str(value)[:60]!r}, not {expected}")
