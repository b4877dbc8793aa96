"""One entry of a document at one point: whether it is there, and which value it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.expressions.compiler import EvaluationError, Expression, MissingNameError
from layers.parameter import Parameter, Scalar
from layers.space.search_parameters import Entry, OpenParameter
from layers.tolerance import near, nearest


class PointError(ValueError):
    """Values that are no point of the space: `name` is the parameter, `message` says what is wrong with it."""

    def __init__(self, name: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{name}: {message}" + (f" ({remedy})" if remedy else ""))
        self.name = name
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[PointError], tuple[str, str, str]]:
        return PointError, (self.name, self.message, self.remedy)

    def rejection(self) -> Rejection:
        """The same as the reason why a sampler's suggestion became no trial."""
        return Rejection(self.name, str(self), 1.0)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a point becomes no trial. `rule` is a stable short name, `violation` (> 0) says how far it is broken."""

    rule: str
    message: str
    violation: float


def is_active(entry: Entry, environment: Mapping[str, Scalar]) -> bool:
    """Whether an entry is present. A condition that names an absent parameter is false."""
    if entry.when is None:
        return True
    try:
        return entry.when.holds(environment)
    except MissingNameError:
        return False
    except EvaluationError as error:
        raise PointError(entry.name, f"when {entry.when.text}: {error}{seen_at(entry.when, environment)}") from None


def evaluate_entry(entry: Entry, environment: dict[str, Scalar]) -> PointError | None:
    """Put a fixed or derived entry's value into `environment`; or return why it has none."""
    if entry.derived is None:
        assert entry.value is not None
        environment[entry.name] = entry.value
        return None
    derived = entry.derived
    try:
        value = derived.evaluate(environment)
    except MissingNameError as error:
        remedy = f"use it only where it is present, or give {entry.name} a when"
        detail = f"{derived.text} needs {error.name}, which is absent{seen_at(derived, environment)}"
        return PointError(entry.name, detail, remedy)
    except EvaluationError as error:
        return PointError(entry.name, f"{derived.text}: {error}{seen_at(derived, environment)}")
    try:
        environment[entry.name] = _as_declared(entry.declared, value)
    except ValueError as error:
        detail = f"{derived.text} gives {value!r}{seen_at(derived, environment)}: {error}"
        return PointError(entry.name, detail, _remedy(entry.declared, value))
    return None


def _as_declared(declared: Parameter, value: Scalar) -> Scalar:
    """A derived value in its parameter's type, rounding put right; bounds are `judge`'s matter. Raises ValueError."""
    if declared.type == "boolean" and not isinstance(value, bool):
        raise ValueError("true or false is needed")
    if declared.type == "string" and (
        not isinstance(value, str) or (declared.choices and value not in declared.choices)
    ):
        raise ValueError(f"one of {', '.join(declared.choices)} is needed")
    if declared.type in ("boolean", "string"):
        return value
    if isinstance(value, bool | str):
        raise ValueError("a number is needed")
    if declared.type == "number":
        bound = next((bound for bound in (declared.minimum, declared.maximum) if near(value, bound)), value)
        return float(bound)
    integer = nearest(value)
    if not isinstance(integer, int):
        raise ValueError("an integer is needed")
    return integer


def _remedy(declared: Parameter, value: Scalar) -> str:
    fraction = declared.type == "integer" and isinstance(value, float)
    return "round it: round_up(..., 64), floor(...), or // for a whole division" if fraction else ""


def is_present(entry: Entry, environment: Mapping[str, Scalar], errors: dict[str, PointError]) -> bool:
    """`is_active`, with a condition that cannot be told put into `errors`."""
    if entry.when is None:
        return True
    try:
        return is_active(entry, environment)
    except PointError as error:
        errors[entry.name] = error
        return False


def chosen_value(opening: OpenParameter, chosen: Mapping[str, Scalar]) -> Scalar:
    """What was chosen for an open parameter. Raises PointError if that is nothing, or outside."""
    if opening.name not in chosen:
        raise PointError(opening.name, "has no value", f"give one: {opening.allowed()}")
    try:
        return opening.canonical(chosen[opening.name])
    except ValueError as error:
        raise PointError(opening.name, str(error), opening.allowed()) from None


def condition_of(entry: Entry) -> str:
    """An entry's `when`, as a message shows it."""
    return entry.when.text if entry.when is not None else "its condition"


def seen_at(expression: Expression, environment: Mapping[str, Scalar]) -> str:
    """The values that an expression saw, as an example."""
    seen = [f"{name} = {environment[name]!r}" for name in expression.names if name in environment]
    return f" at {', '.join(seen)}" if seen else ""
