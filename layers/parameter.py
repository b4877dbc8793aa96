"""What a layer parameter is: its type, bounds, default, meaning, source and search default, declared on one line.

Validation, OpenAPI, docs and search spaces are all derived from these declarations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from layers.problems import shown

Scalar = bool | int | float | str
"""What a parameter can be set to."""

Type = Literal["boolean", "integer", "number", "string"]


class SearchDefault(TypedDict, total=False):
    """A search default as a sweep document writes it: {"values": [...]} or {"min", "max", "step"?, "log"?}."""

    values: Sequence[Scalar]
    min: float
    max: float
    step: float
    log: bool


REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED", "__reduce__": lambda self: "REQUIRED"})()
"""The default of a parameter that has none."""


class ParameterError(ValueError):
    """A value that a parameter cannot take, or values that do not go together.

    `path` names the parameter (below `model`, or with its section), `remedy` says what to try.
    """

    def __init__(self, path: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {message}" + (f" ({remedy})" if remedy else ""))
        self.path = path
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One declared parameter. `default` None means "follows from others", said in `meaning`."""

    type: Type
    meaning: str
    default: Scalar | None = REQUIRED
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names that people know, and why they are not among the choices."""
    source: str = ""
    search: SearchDefault | None = None

    def check(self, path: str, value: Any) -> Scalar:
        """Return `value` as this parameter's type, or raise ParameterError with the place and the remedy."""
        if self.type == "boolean":
            if not isinstance(value, bool):
                raise ParameterError(path, f"{value!r} is not true or false", "write true or false")
            return value
        return self._check_name(path, value) if self.type == "string" else self._check_number(path, value)

    def _check_name(self, path: str, value: Any) -> str:
        if not isinstance(value, str):
            raise ParameterError(path, f"{value!r} is not a name", self._allowed())
        if self.choices and value not in self.choices:
            why = f": {self.refused[value]}" if value in self.refused else ""
            raise ParameterError(path, f"{value!r} is not something that Layersweep builds{why}", self._allowed())
        return value

    def _check_number(self, path: str, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ParameterError(path, f"{value!r} is not a finite number", self._allowed())
        if self.type == "integer":
            if value != int(value):
                raise ParameterError(path, f"{value!r} is not an integer", self._allowed())
            value = int(value)
        else:
            value = float(value)
        if not self.minimum <= value <= self.maximum:
            raise ParameterError(path, f"{shown(value)} is out of range", self._allowed())
        return value

    def _allowed(self) -> str:
        if self.type == "string":
            return f"one of: {', '.join(self.choices)}" if self.choices else "a name"
        kind = "an integer" if self.type == "integer" else "a number"
        if self.minimum > -math.inf and self.maximum < math.inf:
            return f"{kind} from {in_full(self.minimum)} to {in_full(self.maximum)}"
        if self.minimum > -math.inf:
            return f"{kind} of at least {in_full(self.minimum)}"
        if self.maximum < math.inf:
            return f"{kind} of at most {in_full(self.maximum)}"
        return kind


def complete_section(
    section: str, declared: Mapping[str, Parameter], values: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    """The checked values of a section with their defaults, in the order of the declarations. Raises ParameterError."""
    completed: dict[str, Scalar] = {}
    for name, value in values.items():
        if name not in declared:
            raise ParameterError(f"{section}.{name}", "is not a parameter", f"one of: {', '.join(declared)}")
        completed[name] = declared[name].check(f"{section}.{name}", value)
    for name, parameter in declared.items():
        if name not in completed and parameter.default is not None and parameter.default is not REQUIRED:
            completed[name] = parameter.default
    return {name: completed[name] for name in declared if name in completed}


def fields_of(values: Mapping[str, Scalar], names: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """Checked values as the fields of a dataclass that has the declared types: those of `names` that are given below
    `prefix`."""
    return {name: values[path] for name in names if (path := f"{prefix}{name}") in values}


def in_full(value: float) -> str:
    """A bound as people write it: 1,048,576, 0.05, and below a ten-thousandth 1e-8."""
    if float(value).is_integer() and abs(value) < 1e16:
        return f"{value:,.0f}"
    mantissa, _, exponent = repr(float(value)).partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
