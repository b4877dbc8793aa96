"""The body of a request to a document: JSON, or YAML 1.2's core schema. Bounded, and without surprises.

YAML is built from the parser's events, not by a loader: no tags, no Python objects, no dates, and `no` and `on` are
words, `010` is ten and `1e-4` is a number, as in JSON. Anchors and aliases are read, but what they stand for counts
each time, so that a small text cannot become a large document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, TypeAlias

import yaml

from layers.problems import DocumentError, below, cut
from layersweep.json_values import JsonObject
from service.errors import InvalidDocumentError, PayloadTooLargeError, Problem, UnsupportedMediaTypeError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_INTEGER = 2**63
MAX_PROBLEMS = 100

JSON_TYPES = ("application/json", "text/json")
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/vnd.yaml")

_Parser: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


@dataclass(frozen=True, slots=True)
class _Unusable:
    """Stands in a document for something that it must not have."""

    detail: str
    remedy: str


_Value: TypeAlias = "bool | int | float | str | _Unusable | list[_Value] | dict[str, _Value] | None"
"""What was read: JSON's values, and what must not stand in a document in its place."""


class _Repeated(dict[str, "_Value"]):
    """A mapping in which names are given more than once."""

    def __init__(self, values: dict[str, _Value], names: list[str]) -> None:
        super().__init__(values)
        self.names = names


def source_text(body: bytes, content_type: str | None) -> str | None:
    """The text of a YAML document that was read without a problem; None of JSON, which has no comments."""
    return None if _media_type(content_type) == "json" else _decode(body)


def read(body: bytes, content_type: str | None, *, max_bytes: int = MAX_BYTES) -> JsonObject:
    """The document in `body`: a mapping of plain JSON values, every number finite and within 64 bits.

    Raises PayloadTooLargeError, UnsupportedMediaTypeError, or InvalidDocumentError with every problem and its place.
    """
    if len(body) > max_bytes:
        raise PayloadTooLargeError(f"the body has {len(body):,} bytes: a document has at most {max_bytes:,}")
    kind = _media_type(content_type)
    text = _decode(body)
    document = _read_json(text) if kind == "json" else _read_yaml(text)
    problems = list(_unusable(document))[:MAX_PROBLEMS]
    if problems:
        raise InvalidDocumentError(_summary(problems), problems=problems)
    if not isinstance(document, dict):
        raise _refused("the document is not a mapping", "begin with a name and a value, such as name: my-sweep")
    return document


def invalid(error: DocumentError) -> InvalidDocumentError:
    """What `layers.space.document` found wrong with a document, as the error that a caller gets."""
    problems = [Problem(problem.pointer, problem.detail, problem.remedy) for problem in error.problems]
    return InvalidDocumentError(_summary(problems), problems=problems)


def _summary(problems: list[Problem]) -> str:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{first.pointer or 'the document'}: {first.detail}{more}"


def _refused(detail: str, remedy: str, pointer: str = "") -> InvalidDocumentError:
    problem = Problem(pointer, detail, remedy)
    return InvalidDocumentError(_summary([problem]), problems=[problem])


def _media_type(content_type: str | None) -> str:
    message = Message()
    message["Content-Type"] = content_type or ""
    media_type = message.get_content_type() if content_type else ""
    if media_type in JSON_TYPES or media_type.endswith("+json"):
        kind = "json"
    elif media_type in YAML_TYPES or media_type.endswith("+yaml"):
        kind = "yaml"
    else:
        given = f"{content_type!r} is not read here" if content_type else "the body's Content-Type is missing"
        raise UnsupportedMediaTypeError(f"{given}: send application/json or application/yaml")
    charset = str(message.get_content_charset() or "utf-8")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaTypeError(f"charset {charset} is not read here: send UTF-8")
    return kind


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"the body is not UTF-8: byte {error.start} does not belong there"
        raise _refused(detail, "save the document as UTF-8") from None


# --- JSON -----------------------------------------------------------------------------------------------------------


def _read_json(text: str) -> _Value:
    if not text.strip():
        raise _refused("the body is empty", "send a sweep document")
    try:
        return json.loads(
            text,
            object_pairs_hook=_mapping,
            parse_constant=lambda word: _not_finite(word),
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        detail = f"this is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        remedy = "YAML is sent as application/yaml; the commands do so for files that are not named *.json"
        raise _refused(detail, remedy) from None
    except RecursionError:
        raise _too_deep() from None


def _mapping(pairs: list[tuple[str, _Value]]) -> dict[str, _Value]:
    mapping = dict(pairs)
    if len(mapping) == len(pairs):
        return mapping
    seen: set[str] = set()
    repeated = [name for name, _ in pairs if name in seen or seen.add(name)]
    return _Repeated(mapping, list(dict.fromkeys(repeated)))


def _not_finite(word: str) -> _Unusable:
    return _Unusable(f"{word} is not a finite number", "give a finite number")


def _integer(text: str) -> int | _Unusable:
    # Beyond 20 digits the number need not be made to know that it is too large; Python makes none of thousands.
    digits = text.lstrip("+-0")
    number = int(f"{'-' if text.startswith('-') else ''}{digits or 0}") if len(digits) <= 20 else MAX_INTEGER
    if not -MAX_INTEGER <= number < MAX_INTEGER:
        return _Unusable(f"{cut(text)} is too large", "integers lie between -2 ** 63 and 2 ** 63 - 1")
    return number


def _float(text: str) -> float | _Unusable:
    number = float(text)
    return number if math.isfinite(number) else _Unusable(f"{cut(text)} is too large", "numbers end at 1.8e308")


# --- YAML -----------------------------------------------------------------------------------------------------------

YAML_REMEDIES = {
    "tab character": "indent with spaces, not with tabs",
    "mapping values are not allowed": "indent it like the lines beside it; a text with a colon in it is quoted",
    "flow": "close the bracket that was opened, with commas between what is in it",
    "expected ',' or": "close the bracket that was opened, with commas between what is in it",
    "cannot start any token": "quote a text that begins with this character",
    "escape character": "write a backslash twice, or take single quotes",
    "quoted scalar": "close the quotation mark",
    "block": "indent the lines of one list or mapping alike",
    "expected ':'": "write a key and its value as key: value",
    "alias": "quote a text that begins with *",
}
"""By what YAML's reader says; the first that fits."""


def _yaml_remedy(message: str) -> str:
    return next(
        (remedy for part, remedy in YAML_REMEDIES.items() if part in message),
        "write a key and its value as key: value, and a list as [1, 2]",
    )


def _read_yaml(text: str) -> _Value:
    try:
        return _Builder().build(text)
    except yaml.MarkedYAMLError as error:
        if _PARSERS_DEPTH in f"{error.problem} {error.context}":
            raise _too_deep() from None
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = error.problem or error.context or "it cannot be read"
        line = text.splitlines()[mark.line].strip() if mark and mark.line < len(text.splitlines()) else ""
        shown = f": {line[:80]}" if line else ""
        raise _refused(f"this is not YAML: {what}{where}{shown}", _yaml_remedy(f"{what} {error.context}")) from None
    except yaml.YAMLError as error:
        detail = f"this is not YAML: {str(error).splitlines()[0]}"
        raise _refused(detail, "leave out characters that cannot be shown") from None


@dataclass(slots=True)
class _Collection:
    """A sequence or mapping that is still being read."""

    values: list[_Value] | dict[str, _Value]
    anchor: str | None
    nodes_before: int
    key: _Value = None
    has_key: bool = False
    repeated: list[str] = field(default_factory=list[str])

    def expects_key(self) -> bool:
        return isinstance(self.values, dict) and not self.has_key

    def add(self, value: _Value) -> None:
        if isinstance(self.values, list):
            self.values.append(value)
        elif not self.has_key:
            self.key, self.has_key = value, True
        else:
            self.has_key = False
            name = _key(self.key)
            if name in self.values:
                self.repeated.append(name)
            self.values[name] = value

    def finished(self) -> list[_Value] | dict[str, _Value]:
        if isinstance(self.values, dict) and self.repeated:
            return _Repeated(self.values, self.repeated)
        return self.values


def _key(key: _Value) -> str:
    if isinstance(key, str):
        return key
    raise _refused("a name is not text", "names are words: put braces, brackets and asterisks in quotes")


class _Builder:
    """Builds plain values from the parser's events, without recursion."""

    def __init__(self) -> None:
        self._stack: list[_Collection] = []
        self._anchors: dict[str, tuple[_Value, int]] = {}
        """Name -> (value, nodes in it)."""
        self._nodes = 0
        self._documents = 0
        self._root: _Value = None

    def build(self, text: str) -> _Value:
        for event in _events(text):
            self._take(event)
        if not self._documents:
            raise _refused("the body is empty", "send a sweep document")
        return self._root

    def _take(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _refused("the body holds several documents", "send one: leave out what follows ---")
            case yaml.ScalarEvent():
                self._count(1)
                value = _scalar(event)
                if self._stack and self._stack[-1].expects_key():
                    # A document's names are text, as in JSON, whatever they look like.
                    value = event.value
                self._anchor(event.anchor, value, 1)
                self._add(value)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._count(1)
                _refuse_tag(event)
                if len(self._stack) >= MAX_DEPTH:
                    raise _too_deep()
                values: list[_Value] | dict[str, _Value] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
                self._stack.append(_Collection(values, event.anchor, self._nodes))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                collection = self._stack.pop()
                value = collection.finished()
                self._anchor(collection.anchor, value, self._nodes - collection.nodes_before + 1)
                self._add(value)
            case yaml.AliasEvent():
                value, nodes = self._anchors.get(event.anchor, (None, 0))
                if not nodes:
                    where = f"line {event.start_mark.line + 1}"
                    raise _refused(f"*{event.anchor} in {where} stands for nothing", "set the anchor before it is used")
                self._count(nodes)
                self._add(value)
            case _:
                pass

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _refused(f"the document has more than {MAX_NODES:,} values", "shorten it; aliases count in full")

    def _anchor(self, name: str | None, value: _Value, nodes: int) -> None:
        if name is not None:
            self._anchors[name] = (value, nodes)

    def _add(self, value: _Value) -> None:
        if self._stack:
            self._stack[-1].add(value)
        else:
            self._root = value


_PARSERS_DEPTH = "nesting depth"
"""libyaml ends at a depth of its own, before an event of that depth is seen, and says so in these words."""


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=_Parser)


def _scalar(event: yaml.ScalarEvent) -> _Value:
    _refuse_tag(event)
    text = event.value
    # Written plainly, without quotes: otherwise it is text, whatever it says.
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return _float(text)
    return _not_finite(text) if _NOT_FINITE.fullmatch(text) else text


def _refuse_tag(event: Any) -> None:
    if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
        where = f"line {event.start_mark.line + 1}"
        raise _refused(f"the tag {event.tag} in {where} is not read", "leave tags out")


# --- both -----------------------------------------------------------------------------------------------------------


def _too_deep() -> InvalidDocumentError:
    return _refused("the document is nested too deeply", f"nest at most {MAX_DEPTH} deep")


def _unusable(document: _Value) -> Iterator[Problem]:
    """What must not stand in a document, each with its place."""
    stack: list[tuple[str, _Value, int]] = [("", document, 0)]
    nodes = 0
    while stack:
        pointer, value, depth = stack.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise _refused(f"the document has more than {MAX_NODES:,} values", "shorten it")
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, _Unusable):
            yield Problem(pointer, value.detail, value.remedy)
        elif isinstance(value, str):
            yield from _unusable_text(pointer, value)
        elif isinstance(value, list):
            stack += [(below(pointer, index), item, depth + 1) for index, item in reversed(list(enumerate(value)))]
        elif isinstance(value, dict):
            if isinstance(value, _Repeated):
                for name in value.names:
                    yield Problem(below(pointer, name), f"{name!r} is given more than once", "leave one of them out")
            wrong = [problem for name in value for problem in _unusable_text(pointer, name)]
            yield from wrong
            if not wrong:
                stack += [(below(pointer, name), item, depth + 1) for name, item in reversed(list(value.items()))]


def _unusable_text(pointer: str, text: str) -> Iterator[Problem]:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        yield Problem(pointer, f"{text[:40]!r} has characters that are no text", "leave them out")
