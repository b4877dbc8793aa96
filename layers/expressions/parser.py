"""The grammar of expressions: text to a tree. Nothing is ever evaluated here, and nothing of Python is reachable.

    expression  := or ["if" or "else" expression]
    or          := and {"or" and}
    and         := not {"and" not}
    not         := "not" not | comparison
    comparison  := sum {("<" | "<=" | ">" | ">=" | "==" | "!=") sum | ["not"] "in" list}
    sum         := product {("+" | "-") product}
    product     := unary {("*" | "/" | "//" | "%") unary}
    unary       := ("+" | "-") unary | power
    power       := atom ["**" unary]
    atom        := number | string | "true" | "false" | name | function "(" arguments ")" | "(" expression ")"
    list        := "[" literal {"," literal} "]"  (or round brackets)

A name is a path such as `attention.num_attention_heads`. Length, nesting and numbers are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from layers.expressions.lexer import BOOLEANS, ExpressionError, Token, read_number, tokens
from layers.parameter import Scalar

MAX_CHARACTERS = 2_000
MAX_DEPTH = 24
"""Of brackets and prefix operators."""
MAX_HEIGHT = 64
"""Of the tree: how many operators may follow from one another."""

FUNCTIONS: dict[str, tuple[int, int]] = {
    "min": (2, 32),
    "max": (2, 32),
    "round_up": (2, 2),
    "floor": (1, 1),
    "ceil": (1, 1),
    "log2": (1, 1),
}
"""Function -> fewest and most arguments."""

COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
REMEDIES = {
    "=": "write == to compare",
    "&": "write and",
    "&&": "write and",
    "|": "write or",
    "||": "write or",
    "!": "write not",
    "^": "write ** for a power",
}


@dataclass(frozen=True, slots=True)
class Literal:
    value: Scalar
    height: int = 1


@dataclass(frozen=True, slots=True)
class Name:
    path: str
    start: int
    end: int
    height: int = 1


@dataclass(frozen=True, slots=True)
class Negative:
    operand: Node
    height: int


@dataclass(frozen=True, slots=True)
class Arithmetic:
    operator: str
    left: Node
    right: Node
    height: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operands[0] operators[0] operands[1] operators[1] ...`, as in mathematics."""

    operators: tuple[str, ...]
    operands: tuple[Node, ...]
    height: int


@dataclass(frozen=True, slots=True)
class Membership:
    operand: Node
    members: tuple[Literal, ...]
    negated: bool
    height: int


@dataclass(frozen=True, slots=True)
class Logical:
    operator: str
    """and, or"""
    operands: tuple[Node, ...]
    height: int


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node
    height: int


@dataclass(frozen=True, slots=True)
class Conditional:
    condition: Node
    then: Node
    otherwise: Node
    height: int


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Node, ...]
    height: int


Node = Literal | Name | Negative | Arithmetic | Comparison | Membership | Logical | Not | Conditional | Call


def children(node: Node) -> tuple[Node, ...]:
    """The operands of `node`, from left to right."""
    match node:
        case Literal() | Name():
            return ()
        case Negative() | Not():
            return (node.operand,)
        case Membership():
            return (node.operand, *node.members)
        case Arithmetic():
            return (node.left, node.right)
        case Comparison() | Logical():
            return node.operands
        case Conditional():
            return (node.then, node.condition, node.otherwise)
        case Call():
            return node.arguments


def names(node: Node) -> Iterator[Name]:
    """Every name in `node`, from left to right."""
    if isinstance(node, Name):
        yield node
    for child in children(node):
        yield from names(child)


def parse_tree(text: str) -> Node:
    """Parse `text`. Raises ExpressionError."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"it is {len(text)} characters long", f"write at most {MAX_CHARACTERS}")
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._index = 0
        self._depth = 0

    def parse(self) -> Node:
        if self._here.kind == "end":
            raise ExpressionError("it is empty", "write an expression such as hidden_size % 64 == 0")
        node = self._expression()
        if self._here.kind != "end":
            self._unexpected()
        return node

    @property
    def _here(self) -> Token:
        return self._tokens[self._index]

    def _is(self, *texts: str) -> bool:
        return self._here.kind in ("operator", "keyword") and self._here.text in texts

    def _take(self) -> Token:
        token = self._here
        self._index += 1
        return token

    def _expect(self, text: str) -> None:
        if not self._is(text):
            self._unexpected(f"{text} is expected here")
        self._take()

    def _unexpected(self, remedy: str = "") -> NoReturn:
        token = self._here
        if token.kind == "end":
            raise ExpressionError("it ends too early", remedy)
        if token.text == "(":
            remedy = f"only these can be called: {', '.join(FUNCTIONS)}"
        raise ExpressionError(
            f"{token.text!r} at character {token.start + 1} makes no sense there", REMEDIES.get(token.text, remedy)
        )

    def _deeper(self, parse: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError("it is nested too deeply", f"nest at most {MAX_DEPTH} deep")
        node = parse()
        self._depth -= 1
        return node

    def _expression(self) -> Node:
        then = self._or()
        if not self._is("if"):
            return then
        self._take()
        condition = self._or()
        self._expect("else")
        otherwise = self._deeper(self._expression)
        return Conditional(condition, then, otherwise, _height(then, condition, otherwise))

    def _or(self) -> Node:
        return self._logical("or", lambda: self._logical("and", self._not))

    def _logical(self, operator: str, operand: Callable[[], Node]) -> Node:
        operands = [operand()]
        while self._is(operator):
            self._take()
            operands.append(operand())
        return operands[0] if len(operands) == 1 else Logical(operator, tuple(operands), _height(*operands))

    def _not(self) -> Node:
        if not self._is("not"):
            return self._comparison()
        self._take()
        operand = self._deeper(self._not)
        return Not(operand, _height(operand))

    def _comparison(self) -> Node:
        left = self._sum()
        if self._is("in", "not"):
            negated = self._take().text == "not"
            if negated:
                self._expect("in")
            members = self._members()
            return Membership(left, members, negated, _height(left))
        operators: list[str] = []
        operands = [left]
        while self._is(*COMPARISONS):
            operators.append(self._take().text)
            operands.append(self._sum())
        return Comparison(tuple(operators), tuple(operands), _height(*operands)) if operators else left

    def _members(self) -> tuple[Literal, ...]:
        if not self._is("[", "("):
            self._unexpected("a list of values follows in: write for example in ['gelu', 'silu']")
        close = "]" if self._take().text == "[" else ")"
        members: list[Literal] = []
        while not self._is(close):
            if members:
                self._expect(",")
                if self._is(close):
                    break
            members.append(self._member())
        self._take()
        if not members:
            raise ExpressionError("the list after in is empty", "write the values in it")
        return tuple(members)

    def _member(self) -> Literal:
        sign = -1 if self._is("-") else 1
        if sign < 0:
            self._take()
        if self._here.kind not in ("number", "string", "boolean"):
            self._unexpected("a list holds numbers and quoted names only")
        value = self._literal().value
        if sign < 0:
            if isinstance(value, bool | str):
                raise ExpressionError("only a number can be negative")
            value = -value
        return Literal(value)

    def _sum(self) -> Node:
        return self._arithmetic(("+", "-"), lambda: self._arithmetic(("*", "/", "//", "%"), self._unary))

    def _arithmetic(self, operators: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        left = operand()
        while self._is(*operators):
            operator = self._take().text
            right = operand()
            left = Arithmetic(operator, left, right, _height(left, right))
        return left

    def _unary(self) -> Node:
        if not self._is("+", "-"):
            return self._power()
        operator = self._take().text
        operand = self._deeper(self._unary)
        negative = Negative(operand, _height(operand))
        return negative if operator == "-" else Negative(negative, _height(negative))

    def _power(self) -> Node:
        base = self._atom()
        if not self._is("**"):
            return base
        self._take()
        exponent = self._deeper(self._unary)
        return Arithmetic("**", base, exponent, _height(base, exponent))

    def _atom(self) -> Node:
        token = self._here
        if token.kind in ("number", "string", "boolean"):
            return self._literal()
        if token.kind == "name":
            self._take()
            if self._is("(") and token.text in FUNCTIONS:
                return self._call(token.text)
            if self._is("("):
                remedy = f"only these can be called: {', '.join(FUNCTIONS)}"
                raise ExpressionError(f"{token.text!r} cannot be called", remedy)
            return Name(token.text, token.start, token.start + len(token.text))
        if self._is("("):
            self._take()
            node = self._deeper(self._expression)
            self._expect(")")
            return node
        return self._unexpected("a list stands only after in" if self._is("[") else "")

    def _call(self, function: str) -> Node:
        self._expect("(")
        arguments: list[Node] = []
        while not self._is(")"):
            if arguments:
                self._expect(",")
            arguments.append(self._deeper(self._expression))
        self._take()
        fewest, most = FUNCTIONS[function]
        if not fewest <= len(arguments) <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise ExpressionError(f"{function} takes {wanted} arguments, not {len(arguments)}")
        return Call(function, tuple(arguments), _height(*arguments))

    def _literal(self) -> Literal:
        token = self._take()
        if token.kind == "string":
            return Literal(token.text[1:-1])
        if token.kind == "boolean":
            return Literal(BOOLEANS[token.text])
        return Literal(read_number(token.text))


def _height(*nodes: Node) -> int:
    height = 1 + max(node.height for node in nodes)
    if height > MAX_HEIGHT:
        raise ExpressionError("it is a chain of too many operations", f"write at most {MAX_HEIGHT} in a row")
    return height
