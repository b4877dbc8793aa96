"""Expressions of sweep documents: `derived`, `when`, rules and constraints.

Arithmetic (`+ - * / // % **`), comparison, `and or not in`, `a if c else b`, and the functions
`min max round_up floor ceil log2` over parameter names, numbers, quoted names and true/false. Parsed by
`layers.expressions.parser` and compiled to closures once; never `eval`ed. Every integer stays within 2 ** 63 and every
number finite, so that no expression takes long or grows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from layers.expressions import parser
from layers.expressions.lexer import MAX_INTEGER, ExpressionError
from layers.expressions.parser import Node
from layers.parameter import Scalar
from layers.tolerance import near, nearest

__all__ = ["EvaluationError", "Expression", "ExpressionError", "Kind", "MissingNameError", "parse"]

Kind = Literal["derived", "when", "rule", "constraint"]
"""What an expression is for: `derived` gives a value, the others true or false."""

Values = Mapping[str, Scalar]
Evaluate = Callable[[Values], Scalar]


class EvaluationError(ValueError):
    """An expression has no value at a point: a division by zero, an overflow, a name where a number is needed."""


class MissingNameError(EvaluationError):
    """A name that the expression needs has no value at this point."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has no value there")
        self.name = name


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. Equal texts are equal expressions."""

    text: str
    kind: Kind
    names: tuple[str, ...] = field(compare=False)
    """The names in it, each once, in order."""
    tree: Node = field(compare=False, repr=False)
    _evaluate: Evaluate = field(compare=False, repr=False)
    _shortfall: Callable[[Values], float] | None = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[Callable[[str, Kind], Expression], tuple[str, Kind]]:
        # What it was compiled to stays in its process; the text says the same to another.
        return _parsed_again, (self.text, self.kind)

    def evaluate(self, values: Values) -> Scalar:
        """The value at a point. Raises MissingNameError, EvaluationError. What is not needed is not looked at."""
        return self._evaluate(values)

    def holds(self, values: Values) -> bool:
        """Whether a condition is true at a point. Raises as `evaluate`."""
        return self._evaluate(values) is True

    def shortfall(self, values: Values) -> float:
        """How far a condition is from true: 0 if it holds, otherwise more than 0. Raises as `evaluate`."""
        assert self._shortfall is not None, "a derived value is not a condition"
        return self._shortfall(values)

    def renamed(self, rename: Callable[[str], str]) -> Expression:
        """The same expression with every name put through `rename`, in its text as well."""
        pieces: list[str] = []
        position = 0
        for name in sorted(parser.names(self.tree), key=lambda name: name.start):
            pieces += [self.text[position : name.start], rename(name.path)]
            position = name.end
        text = "".join(pieces) + self.text[position:]
        return self if text == self.text else parse(text, kind=self.kind)


def parse(text: str, *, kind: Kind) -> Expression:
    """Parse `text`. Raises ExpressionError: where it is wrong, and what to try."""
    tree = parser.parse_tree(text)
    if kind != "derived" and not _may_be_condition(tree):
        raise ExpressionError(
            "it gives a value, not true or false", "compare it with something, for example hidden_size % 64 == 0"
        )
    names = tuple(dict.fromkeys(name.path for name in parser.names(tree)))
    shortfall = None if kind == "derived" else _compile_shortfall(tree)
    return Expression(text, kind, names, tree, compile_tree(tree), shortfall)


def _parsed_again(text: str, kind: Kind) -> Expression:
    return parse(text, kind=kind)


def _may_be_condition(node: Node) -> bool:
    match node:
        case parser.Comparison() | parser.Membership() | parser.Logical() | parser.Not() | parser.Name():
            return True
        case parser.Literal():
            return isinstance(node.value, bool)
        case parser.Conditional():
            return _may_be_condition(node.then) and _may_be_condition(node.otherwise)
        case parser.Negative() | parser.Arithmetic() | parser.Call():
            return False


def number(value: Scalar) -> int | float:
    """`value` as a number. Raises EvaluationError for names and true/false."""
    if isinstance(value, bool | str):
        raise EvaluationError(f"{_show(value)} is not a number")
    return value


def boolean(value: Scalar) -> bool:
    """`value` as true or false. Raises EvaluationError for anything else: nothing is taken for true by chance."""
    if not isinstance(value, bool):
        raise EvaluationError(f"{_show(value)} is neither true nor false")
    return value


def _show(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _bounded(value: int | float | complex) -> int | float:
    if isinstance(value, int):
        if -MAX_INTEGER <= value < MAX_INTEGER:
            return value
    elif isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, complex):
        raise EvaluationError("a fractional power of a negative number is not a real number")
    raise EvaluationError("a result is too large: integers end at 2 ** 63, numbers at 1.8e308")


def _power(base: int | float, exponent: int | float) -> int | float | complex:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 64 and abs(base) > 1:
        raise EvaluationError(f"{base} ** {exponent} is too large")
    # A complex result is possible for a negative base: _bounded names it.
    return cast("int | float | complex", base**exponent)


def _floor_divide(value: int | float, divisor: int | float) -> int | float:
    if isinstance(value, int) and isinstance(divisor, int):
        return value // divisor
    return float(math.floor(nearest(_bounded(value / divisor))))


def _remainder(value: int | float, divisor: int | float) -> int | float:
    if isinstance(value, int) and isinstance(divisor, int):
        return value % divisor
    return 0.0 if isinstance(nearest(_bounded(value / divisor)), int) else value % divisor


def _round_up(value: int | float, multiple: int | float) -> int | float:
    if multiple <= 0:
        raise EvaluationError(f"round_up rounds to a multiple of more than 0, not {multiple!r}")
    if isinstance(value, int) and isinstance(multiple, int):
        return -(-value // multiple) * multiple
    return math.ceil(nearest(_bounded(value / multiple))) * multiple


def _log2(value: int | float) -> float:
    if value <= 0:
        raise EvaluationError(f"log2 of {value!r} does not exist")
    return math.log2(value)


_ARITHMETIC: dict[str, Callable[[int | float, int | float], int | float | complex]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": _floor_divide,
    "%": _remainder,
    "**": _power,
}

_FUNCTIONS: dict[str, Callable[..., int | float]] = {
    "min": min,
    "max": max,
    "round_up": _round_up,
    "floor": lambda value: math.floor(nearest(value)),
    "ceil": lambda value: math.ceil(nearest(value)),
    "log2": _log2,
}

_ORDER: dict[str, Callable[[int | float, int | float], bool]] = {
    "<": lambda left, right: left < right and not near(left, right),
    "<=": lambda left, right: left <= right or near(left, right),
    ">": lambda left, right: left > right and not near(left, right),
    ">=": lambda left, right: left >= right or near(left, right),
}


def _calculated(symbol: str, function: Callable[..., int | float | complex], *values: int | float) -> int | float:
    try:
        return _bounded(function(*values))
    except ZeroDivisionError:
        raise EvaluationError(f"a division by zero: {values[0]!r} {symbol} {values[-1]!r}") from None
    except OverflowError:
        raise EvaluationError(f"{symbol} of {', '.join(map(repr, values))} is too large") from None


def equal(left: Scalar, right: Scalar) -> bool:
    """Whether two values of one kind are equal, numbers but for rounding. Raises EvaluationError if kinds differ."""
    if isinstance(left, str) is not isinstance(right, str) or isinstance(left, bool) is not isinstance(right, bool):
        raise EvaluationError(f"{_show(left)} and {_show(right)} cannot be compared: they are not of one kind")
    if isinstance(left, str | bool) or isinstance(right, str | bool):
        return left == right
    return near(left, right)


def compare(symbol: str, left: Scalar, right: Scalar) -> bool:
    """`left symbol right`. Raises EvaluationError if the two cannot be compared."""
    if symbol == "==":
        return equal(left, right)
    if symbol == "!=":
        return not equal(left, right)
    return _ORDER[symbol](number(left), number(right))


def compile_tree(node: Node) -> Evaluate:
    """`node` as a function of the values by name: made once, called for every point."""
    match node:
        case parser.Literal(value=value):
            return lambda values: value
        case parser.Name(path=path):
            return _compile_name(path)
        case parser.Negative():
            operand = compile_tree(node.operand)
            return lambda values: _bounded(-number(operand(values)))
        case parser.Arithmetic():
            return _compile_arithmetic(node)
        case parser.Comparison():
            return _compile_comparison(node)
        case parser.Membership():
            operand, members = compile_tree(node.operand), tuple(member.value for member in node.members)
            negated = node.negated
            return lambda values: _contains(members, operand(values)) is not negated
        case parser.Logical():
            operands = tuple(compile_tree(operand) for operand in node.operands)
            if node.operator == "and":
                return lambda values: all(boolean(operand(values)) for operand in operands)
            return lambda values: any(boolean(operand(values)) for operand in operands)
        case parser.Not():
            operand = compile_tree(node.operand)
            return lambda values: not boolean(operand(values))
        case parser.Conditional():
            condition, then, otherwise = (
                compile_tree(node.condition),
                compile_tree(node.then),
                compile_tree(node.otherwise),
            )
            return lambda values: then(values) if boolean(condition(values)) else otherwise(values)
        case parser.Call():
            name, function = node.function, _FUNCTIONS[node.function]
            arguments = tuple(compile_tree(argument) for argument in node.arguments)
            return lambda values: _calculated(name, function, *(number(argument(values)) for argument in arguments))


def _contains(members: tuple[Scalar, ...], value: Scalar) -> bool:
    # Not any(): every member is compared, so that a member of another kind is an error wherever it stands.
    return sum([equal(value, member) for member in members]) > 0


def _compile_name(path: str) -> Evaluate:
    def evaluate(values: Values) -> Scalar:
        try:
            return values[path]
        except KeyError:
            raise MissingNameError(path) from None

    return evaluate


def _compile_arithmetic(node: parser.Arithmetic) -> Evaluate:
    left, right, symbol = compile_tree(node.left), compile_tree(node.right), node.operator
    function = _ARITHMETIC[symbol]
    return lambda values: _calculated(symbol, function, number(left(values)), number(right(values)))


def _compile_comparison(node: parser.Comparison) -> Evaluate:
    first, *others = (compile_tree(operand) for operand in node.operands)
    steps = tuple(zip(node.operators, others, strict=True))

    def evaluate(values: Values) -> bool:
        left = first(values)
        for symbol, operand in steps:
            right = operand(values)
            if not compare(symbol, left, right):
                return False
            left = right
        return True

    return evaluate


def _compile_shortfall(node: Node) -> Callable[[Values], float]:
    """How far from true: numbers by their difference, `and` by the sum, `or` by the least, everything else by 1."""
    match node:
        case parser.Comparison():
            return _compile_comparison_shortfall(node)
        case parser.Logical():
            parts = tuple(_compile_shortfall(operand) for operand in node.operands)
            if node.operator == "and":
                return lambda values: _finite(sum(part(values) for part in parts))
            return lambda values: _least(parts, values)
        case _:
            condition = compile_tree(node)
            return lambda values: 0.0 if boolean(condition(values)) else 1.0


def _least(parts: tuple[Callable[[Values], float], ...], values: Values) -> float:
    least = math.inf
    for part in parts:
        least = min(least, part(values))
        if least == 0:
            break
    return least


def _compile_comparison_shortfall(node: parser.Comparison) -> Callable[[Values], float]:
    first, *others = (compile_tree(operand) for operand in node.operands)
    steps = tuple(zip(node.operators, others, strict=True))

    def shortfall(values: Values) -> float:
        total = 0.0
        left = first(values)
        for symbol, operand in steps:
            right = operand(values)
            if not compare(symbol, left, right):
                total += _distance(left, right)
            left = right
        return _finite(total)

    return shortfall


def _distance(left: Scalar, right: Scalar) -> float:
    """How far apart two values of a comparison that failed are: more than 0 even if they are equal (`<`)."""
    if isinstance(left, bool | str) or isinstance(right, bool | str):
        return 1.0
    return _finite(abs(float(left) - float(right))) or math.ulp(max(abs(float(left)), abs(float(right)), 1e-300))


def _finite(value: float) -> float:
    return min(value, 1e308)
