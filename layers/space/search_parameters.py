"""One parameter of a sweep document: a value, {values}, {min, max, step?, log?} or {derived}, perhaps with `when`.

`default_space` stands for the range that the declaration recommends.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from layers.declarations.per_layer import BLOCK_PATHS, OF_BLOCKS, layer_name
from layers.expressions.compiler import Expression, ExpressionError, Kind, parse
from layers.expressions.names import is_variable
from layers.parameter import Parameter, ParameterError, Scalar
from layers.problems import Problem, Problems, below, did_you_mean, shown
from layers.sections import Section, Written
from layers.tolerance import near

FIELDS = ("value", "values", "min", "max", "step", "log", "derived", "when", "per_layer")
DEFAULT_SPACE = "default_space"
"""In place of a parameter or of its values: search what the declaration recommends."""
MAX_VALUES = 10_000
MAX_GRID = 10**9
"""Points of one stepped range: finer than that, it is continuous."""


@dataclass(frozen=True, slots=True)
class OpenParameter:
    """A parameter that the sweep searches.

    kind `values`: one of `values` (numbers ascending: `ordinal` says that an index may be suggested).
    kind `integer`: low, low + step, ... up to high, all of them reachable. kind `number`: as `integer` if `step` is
    given, else anything from low to high. `log`: equal ratios are equally likely (never with a step).
    """

    name: str
    pointer: str
    kind: Literal["values", "integer", "number"]
    values: tuple[Scalar, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    when: Expression | None = field(default=None, compare=False)
    ordinal: bool = False

    @property
    def size(self) -> int | None:
        """How many values it can take; None for a continuous one."""
        if self.kind == "values":
            return len(self.values)
        assert self.low is not None
        assert self.high is not None
        if self.step is None:
            return None
        return _grid_size(self.low, self.high, self.step)

    def choices(self) -> Iterator[Scalar]:
        """Every value that it can take, in order. Raises ValueError for a continuous one."""
        size = self.size
        if size is None:
            raise ValueError(f"{self.name} is continuous")
        for index in range(size):
            yield self.choice(index)

    def choice(self, index: int) -> Scalar:
        """The value that `choices` gives after `index` others."""
        return self.values[index] if self.kind == "values" else self._at(index)

    def _at(self, index: int) -> int | float:
        assert self.low is not None
        assert self.step is not None
        value = self.low + index * self.step
        # 0.1 + 2 * 0.1 is 0.30000000000000004: a step means the decimal number.
        return value if isinstance(value, int) else float(f"{value:.12g}")

    def canonical(self, value: Any) -> Scalar:
        """`value` as this parameter's own, or ValueError in words: which values it can take."""
        if self.kind == "values":
            for known in self.values:
                if isinstance(known, bool) is isinstance(value, bool) and (known == value or _is_near(known, value)):
                    return known
            raise ValueError(f"{shown(value)} is not among its values")
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{shown(value)} is not in its range")
        if self.step is not None:
            return self._on_steps(value, self.low, self.step)
        if not self.low <= value <= self.high:
            raise ValueError(f"{shown(value)} is not in its range")
        return float(value)

    def _on_steps(self, value: int | float, low: int | float, step: int | float) -> int | float:
        index = round((value - low) / step)
        if not 0 <= index < (self.size or 0):
            raise ValueError(f"{shown(value)} is not in its range")
        nearest = self._at(index)
        if not math.isclose(nearest, value, rel_tol=1e-9, abs_tol=step * 1e-6):
            raise ValueError(f"{shown(value)} is not on its steps")
        return nearest

    def allowed(self) -> str:
        """The values that it can take, in words."""
        if self.kind == "values":
            listed = ", ".join(shown(value) for value in self.values[:20])
            return f"one of: {listed}" + (", ..." if len(self.values) > 20 else "")
        steps = (
            f" in steps of {self.step!r}" if self.step not in (None, 1) or (self.kind == "number" and self.step) else ""
        )
        return f"from {self.low!r} to {self.high!r}{steps}"

    def draw(self, source: random.Random) -> Scalar:
        """One value at random: evenly, with `log` evenly in the logarithm."""
        if self.kind == "values":
            return source.choice(self.values)
        assert self.low is not None
        assert self.high is not None
        if self.log and self.kind == "integer":
            # As samplers do: every integer has the half below and above it.
            drawn = math.exp(source.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), int(self.low)), int(self.high))
        if self.step is not None:
            return self._at(source.randrange(self.size or 1))
        if self.log:
            drawn = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = source.uniform(self.low, self.high)
        return min(max(drawn, float(self.low)), float(self.high))


@dataclass(frozen=True, slots=True)
class Entry:
    """One parameter of a document: exactly one of `value`, `opening` and `derived` is given."""

    name: str
    pointer: str
    declared: Parameter
    value: Scalar | None = None
    opening: OpenParameter | None = None
    derived: Expression | None = None
    when: Expression | None = None
    written: Any = None
    """As the normalized document writes it, expressions apart."""
    default_space: bool = False
    """Its range is the declaration's: it is absent if it does not apply."""
    per_layer: bool = False
    """It stands for a parameter of its own in each layer."""

    def with_expressions(self, when: Expression | None, derived: Expression | None) -> Entry:
        """The same entry with these expressions."""
        opening = None if self.opening is None else replace(self.opening, when=when)
        return replace(self, when=when, derived=derived, opening=opening)

    def written_numbers(self) -> Iterator[tuple[str, int | float]]:
        """The numbers that bound what it can be, each with its pointer: its value, its values, or its max."""
        if self.opening is None:
            given = {self.pointer: self.value}
        elif self.opening.kind == "values":
            place = below(self.pointer, "values")
            given = {below(place, index): value for index, value in enumerate(self.written["values"])}
        else:
            given = {below(self.pointer, "max"): self.opening.high}
        yield from ((pointer, value) for pointer, value in given.items() if isinstance(value, int | float))

    def normalized(self) -> Written:
        """As the normalized document writes it: a plain value, or its fields."""
        fields: Section = dict(self.written) if isinstance(self.written, dict) else {"value": self.written}
        if self.derived is not None:
            fields["derived"] = self.derived.text
        if self.when is not None:
            fields["when"] = self.when.text
        if self.per_layer:
            fields["per_layer"] = True
        return self.value if list(fields) == ["value"] else fields


def _is_near(known: Scalar, value: Any) -> bool:
    return isinstance(known, float) and isinstance(value, int | float) and near(known, value)


def _grid_size(low: float, high: float, step: float) -> int:
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int):
        return (high - low) // step + 1
    return math.floor((high - low) / step + 1e-9) + 1


class ParameterReader:
    """Reads parameters, and collects what is wrong with them and what is worth a note."""

    def __init__(self, problems: Problems, notes: list[Problem]) -> None:
        self._problems = problems
        self._notes = notes

    def read(self, name: str, pointer: str, declared: Parameter, written: Any) -> Entry | None:
        """The entry that `written` means, or None with the problems noted."""
        if written == DEFAULT_SPACE and DEFAULT_SPACE not in declared.choices:
            return self._read_fields(name, pointer, declared, {"values": DEFAULT_SPACE})
        if isinstance(written, Mapping):
            return self._read_fields(name, pointer, declared, written)
        if isinstance(written, list):
            self._problems.add(pointer, f"{name} is a list", "write {values: [...]} to search these values")
            return None
        value = self._check(name, pointer, declared, written)
        return None if value is None else Entry(name, pointer, declared, value=value, written=value)

    def expression(self, pointer: str, text: Any, kind: Kind) -> Expression | None:
        """Parse `text`, or None with the problem noted."""
        if not isinstance(text, str):
            self._problems.add(pointer, f"{shown(text)} is not an expression", "write it as text, in quotes")
            return None
        try:
            return parse(text.strip(), kind=kind)
        except ExpressionError as error:
            self._problems.add(pointer, f"{shown(text)}: {error.message}", error.remedy)
            return None

    def _check(self, name: str, pointer: str, declared: Parameter, value: Any) -> Scalar | None:
        if value is None:
            self._problems.add(pointer, f"{name} has no value", "give one, or leave the name out")
            return None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            self._problems.add(pointer, f"{name}: {shown(value)} is too large", "integers end at 2 ** 63 - 1")
            return None
        try:
            return declared.check(name, value)
        except ParameterError as error:
            self._problems.add(pointer, f"{name}: {error.message}", error.remedy)
            return None

    def _read_fields(self, name: str, pointer: str, declared: Parameter, written: Mapping[Any, Any]) -> Entry | None:
        before = len(self._problems)
        default_space = written.get("values") == DEFAULT_SPACE
        if default_space:
            if declared.search is None:
                self._problems.add(pointer, f"{name} has no {DEFAULT_SPACE}", "list the values to search")
                return None
            written = {key: value for key, value in written.items() if key != "values"} | dict(declared.search)
        for key in written:
            if key not in FIELDS:
                self._problems.add(
                    below(pointer, key), f"{shown(key)} is not a field of a parameter", did_you_mean(str(key), FIELDS)
                )
        when = self.expression(below(pointer, "when"), written["when"], "when") if "when" in written else None
        per_layer = self._read_per_layer(name, pointer, written)
        given = [key for key in ("value", "values", "derived") if key in written]
        if any(key in written for key in ("min", "max", "step", "log")):
            given.append("min and max")
        if len(given) != 1:
            detail = f"{name} gives {' and '.join(given)}" if given else f"{name} says neither value nor what to search"
            self._problems.add(pointer, detail, "give one of: value, values, min and max, derived")
            return None
        read = {
            "value": self._read_value,
            "values": self._read_values,
            "derived": self._read_derived,
            "min and max": self._read_range,
        }
        entry = read[given[0]](name, pointer, declared, written, when)
        if entry is None or len(self._problems) > before:
            return None
        return replace(entry, default_space=default_space, per_layer=per_layer)

    def _read_per_layer(self, name: str, pointer: str, written: Mapping[Any, Any]) -> bool:
        per_layer, place = written.get("per_layer", False), below(pointer, "per_layer")
        if not isinstance(per_layer, bool):
            self._problems.add(place, f"{name}: per_layer is {shown(per_layer)}", "write true or false")
            return False
        if per_layer and layer_name(name) is not None:
            self._problems.add(place, f"{name} is one layer's already", "leave per_layer out")
        elif per_layer and name not in BLOCK_PATHS and not is_variable(name):
            own = f"attention, mlp and norm, {', '.join(OF_BLOCKS)}"
            remedy = f"per_layer is for variables and a block's parameters: those of {own}"
            self._problems.add(place, f"{name} is not a block's: it is the same in all layers", remedy)
        return per_layer

    def _read_value(
        self, name: str, pointer: str, declared: Parameter, written: Mapping[Any, Any], when: Expression | None
    ) -> Entry | None:
        value = self._check(name, below(pointer, "value"), declared, written["value"])
        return (
            None if value is None else Entry(name, pointer, declared, value=value, when=when, written={"value": value})
        )

    def _read_derived(
        self, name: str, pointer: str, declared: Parameter, written: Mapping[Any, Any], when: Expression | None
    ) -> Entry | None:
        expression = self.expression(below(pointer, "derived"), written["derived"], "derived")
        return None if expression is None else Entry(name, pointer, declared, derived=expression, when=when, written={})

    def _read_values(
        self, name: str, pointer: str, declared: Parameter, written: Mapping[Any, Any], when: Expression | None
    ) -> Entry | None:
        values, place = written["values"], below(pointer, "values")
        if not isinstance(values, list) or not values:
            what = "is empty" if isinstance(values, list) else f"is {shown(values)}"
            self._problems.add(place, f"{name}: values {what}", "list the values to search, for example [1, 2, 4]")
            return None
        if len(values) > MAX_VALUES:
            self._problems.add(
                place, f"{name}: {len(values)} values", f"list at most {MAX_VALUES}, or give min and max"
            )
            return None
        checked: list[Scalar] = []
        for index, value in enumerate(values):
            if isinstance(value, Mapping | list):
                self._problems.add(below(place, index), f"{name}: {shown(value)} is not a value", "list plain values")
                continue
            kept = self._check(name, below(place, index), declared, value)
            if kept is not None and kept in checked:
                self._problems.add(
                    below(place, index), f"{name}: {shown(value)} is listed twice", "list every value once"
                )
            elif kept is not None:
                checked.append(kept)
        if len(checked) != len(values):
            return None
        ordinal = declared.type in ("integer", "number")
        ordered = tuple(sorted(checked, key=lambda value: (float(value), value))) if ordinal else tuple(checked)
        opening = OpenParameter(name, pointer, "values", values=ordered, when=when, ordinal=ordinal)
        return Entry(name, pointer, declared, opening=opening, when=when, written={"values": checked})

    def _read_range(
        self, name: str, pointer: str, declared: Parameter, written: Mapping[Any, Any], when: Expression | None
    ) -> Entry | None:
        if declared.type not in ("integer", "number"):
            remedy = (
                "write {values: [true, false]}"
                if declared.type == "boolean"
                else f"list values: {', '.join(declared.choices)}"
            )
            self._problems.add(pointer, f"{name} is not a number: it has no min and max", remedy)
            return None
        missing = [bound for bound in ("min", "max") if bound not in written]
        if missing:
            self._problems.add(pointer, f"{name}: {' and '.join(missing)} is missing", "give both min and max")
        bounds = [
            self._check(name, below(pointer, bound), declared, written[bound])
            for bound in ("min", "max")
            if bound in written
        ]
        log = self._read_log(name, pointer, written)
        if log is None:
            return None
        step = self._read_step(name, pointer, declared, written)
        if missing or None in bounds or ("step" in written and step is None):
            return None
        low, high = float_or_int(bounds[0]), float_or_int(bounds[1])
        if low > high:
            self._problems.add(pointer, f"{name}: min {low!r} is above max {high!r}", "exchange them")
            return None
        if log and step is not None:
            self._problems.add(
                below(pointer, "step"),
                f"{name}: a logarithmic range has no step",
                "leave step or log out, or list values",
            )
            return None
        shown_fields = (
            {"min": low, "max": high} | ({"step": step} if step is not None else {}) | ({"log": True} if log else {})
        )
        if step is None and declared.type == "integer":
            step = 1
        if step is not None:
            high = self._reachable(name, pointer, low, high, step)
            if high is None:
                return None
        kind: Literal["integer", "number"] = "integer" if declared.type == "integer" else "number"
        opening = OpenParameter(name, pointer, kind, low=low, high=high, step=step, log=log, when=when)
        return Entry(name, pointer, declared, opening=opening, when=when, written=shown_fields)

    def _read_log(self, name: str, pointer: str, written: Mapping[Any, Any]) -> bool | None:
        """Whether a range is logarithmic; None with the problem noted if it cannot be."""
        log = written.get("log", False)
        if not isinstance(log, bool):
            self._problems.add(below(pointer, "log"), f"{name}: log is {shown(log)}", "write true or false")
            return None
        if log and isinstance(written.get("min"), int | float) and written["min"] <= 0:
            detail = f"{name}: a logarithmic range (log: true) cannot begin at {written['min']!r}"
            self._problems.add(below(pointer, "min"), detail, "give a min above 0, or leave log out")
            return None
        return log

    def _read_step(
        self, name: str, pointer: str, declared: Parameter, written: Mapping[Any, Any]
    ) -> int | float | None:
        if "step" not in written:
            return None
        step, place = written["step"], below(pointer, "step")
        integer = declared.type == "integer"
        # The comparison is false for NaN too; without it int() would fail on infinity.
        fits = isinstance(step, int | float) and not isinstance(step, bool) and 0 < step < 2**63
        if not fits or (integer and step != int(step)):
            kind = "an integer" if integer else "a number"
            self._problems.add(place, f"{name}: {shown(step)} is not a step", f"give {kind} above 0")
            return None
        return int(step) if integer else float(step)

    def _reachable(self, name: str, pointer: str, low: float, high: float, step: float) -> int | float | None:
        """The last value that the steps reach; None with the problem noted if there are too many."""
        if not isinstance(step, int) and (high - low) / step > MAX_GRID:
            remedy = f"at most {MAX_GRID:,} steps, or leave step out"
            self._problems.add(below(pointer, "step"), f"{name}: the steps are too fine", remedy)
            return None
        last = low + (_grid_size(low, high, step) - 1) * step
        last = last if isinstance(last, int) else min(float(f"{last:.12g}"), high)
        if not math.isclose(last, high, rel_tol=1e-9):
            detail = f"{name}: steps of {step!r} from {low!r} do not reach {high!r}: the last value is {last!r}"
            self._notes.append(Problem(below(pointer, "step"), detail, "nothing need be done"))
        return last


def float_or_int(value: Scalar | None) -> int | float:
    """A checked bound as a number."""
    assert isinstance(value, int | float)
    return value
