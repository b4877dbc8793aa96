"""Types of expressions, checked before any point is looked at: a number never equals a name by chance."""

from __future__ import annotations

from typing import Literal

from layers.expressions import parser
from layers.expressions.compiler import Expression, ExpressionError
from layers.expressions.names import Names
from layers.expressions.parser import Node
from layers.metrics import is_metric
from layers.parameter import Parameter
from layers.problems import did_you_mean

ValueType = Literal["number", "boolean", "string"]

WORDS = {"number": "a number", "boolean": "true or false", "string": "a name"}


def check_types(expression: Expression, names: Names, declared: Parameter | None = None) -> None:
    """Check an expression with full names. `declared` is the parameter that it derives. Raises ExpressionError."""
    found = _TypeChecker(names).type_of(expression.tree)
    wanted = "boolean" if declared is None else _declared_type(declared)
    if found != wanted:
        raise ExpressionError(f"it gives {WORDS[found]}", f"{WORDS[wanted]} is needed")
    if declared is not None and declared.choices:
        for literal in _results(expression.tree):
            _check_choice(literal.value, declared, "a value of it")


def _declared_type(declared: Parameter) -> ValueType:
    return "number" if declared.type == "integer" else declared.type


class _TypeChecker:
    """The types of expressions over some names."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def type_of(self, node: Node) -> ValueType:
        """What a node gives. Raises ExpressionError if something in it does not go together."""
        match node:
            case parser.Literal(value=value):
                return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            case parser.Name(path=path):
                return "number" if is_metric(path) else _declared_type(self._declaration(path))
            case parser.Negative():
                return self._need(node.operand, "number")
            case parser.Arithmetic():
                self._need(node.left, "number")
                return self._need(node.right, "number")
            case parser.Call():
                for argument in node.arguments:
                    self._need(argument, "number")
                return "number"
            case parser.Not():
                return self._need(node.operand, "boolean")
            case parser.Logical():
                for operand in node.operands:
                    self._need(operand, "boolean")
                return "boolean"
            case parser.Membership():
                for member in node.members:
                    self._comparable(node.operand, member)
                return "boolean"
            case parser.Comparison():
                return self._comparison(node)
            case parser.Conditional():
                self._need(node.condition, "boolean")
                return self._need(node.otherwise, self.type_of(node.then))

    def _declaration(self, path: str) -> Parameter:
        found = self._names.declaration(path)
        assert found is not None, f"{path} is not a full name"
        return found

    def _comparison(self, node: parser.Comparison) -> ValueType:
        for index, operator in enumerate(node.operators):
            left, right = node.operands[index], node.operands[index + 1]
            if operator in ("==", "!="):
                self._comparable(left, right)
            else:
                self._need(left, "number")
                self._need(right, "number")
        return "boolean"

    def _need(self, node: Node, wanted: ValueType) -> ValueType:
        found = self.type_of(node)
        if found != wanted:
            raise ExpressionError(f"{_shown(node)} is {WORDS[found]}", f"{WORDS[wanted]} is needed there")
        return found

    def _comparable(self, left: Node, right: Node) -> None:
        one, other = self.type_of(left), self.type_of(right)
        if one != other:
            message = f"{_shown(left)} is {WORDS[one]}, {_shown(right)} is {WORDS[other]}: they are never equal"
            raise ExpressionError(message, "put quotes around names, and none around numbers, true and false")
        for name, literal in ((left, right), (right, left)):
            if isinstance(name, parser.Name) and isinstance(literal, parser.Literal) and not is_metric(name.path):
                _check_choice(literal.value, self._declaration(name.path), f"a value of {name.path}")


def _check_choice(value: object, declared: Parameter, what: str) -> None:
    if declared.choices and value not in declared.choices:
        near = did_you_mean(str(value), declared.choices)
        raise ExpressionError(f"{value!r} is not {what}", near or f"one of: {', '.join(declared.choices)}")


def _results(node: Node) -> list[parser.Literal]:
    """The literals that an expression may give."""
    if isinstance(node, parser.Conditional):
        return [*_results(node.then), *_results(node.otherwise)]
    return [node] if isinstance(node, parser.Literal) else []


def _shown(node: Node) -> str:
    match node:
        case parser.Name(path=path):
            return path
        case parser.Literal(value=value):
            return str(value).lower() if isinstance(value, bool) else repr(value)
        case _:
            return "a part of it"
