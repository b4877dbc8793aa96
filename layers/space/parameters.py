"""The parameters of a sweep document: sections read, other spellings put right, and all of it in a working order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from layers.dataset_facts import DatasetFacts
from layers.declarations.inference.shape_reader import read_shapes
from layers.declarations.inference.shapes import SHAPE_PARAMETERS, SHAPES, NamedShape
from layers.declarations.kinds import KINDS, kinds_of
from layers.declarations.model import APPLIES, DECLARATIONS
from layers.declarations.per_layer import base_path, layer_name, place_of
from layers.declarations.training import LENGTHS
from layers.expressions.compiler import Expression, ExpressionError, parse
from layers.expressions.metric_names import MetricNames
from layers.expressions.names import (
    DECLARED,
    POSITION_TYPE,
    RELATIVE,
    RELATIVE_ATTENTION,
    VARIABLES,
    Names,
    UnknownNameError,
    declaration,
    default_of,
    is_variable,
    unknown_parameter,
)
from layers.expressions.types import check_types
from layers.parameter import REQUIRED
from layers.problems import Problem, Problems, below, shown
from layers.sections import Section, nested
from layers.space.per_layer_expansion import Expansion
from layers.space.search_parameters import Entry, ParameterReader
from layers.space.variables import read_variables

MAX_OPEN = 200


class SectionReader:
    """Reads `variables`, `model`, `training` and `inference`."""

    def __init__(self, document: Mapping[Any, Any], problems: Problems, notes: list[Problem]) -> None:
        self._document = document
        self._problems = problems
        self._reader = ParameterReader(problems, notes)
        self._entries: dict[str, Entry] = {}
        self._places: dict[str, str] = {}
        """Name -> where it was given, wrong entries included."""
        self.names = Names()
        """What expressions may name."""
        self.shapes: tuple[NamedShape, ...] = ()
        """Those of `inference.shapes`. The parameters of the first one are entries, too."""
        self.written: tuple[Entry, ...] = ()
        """The entries as the document writes them, in the order of the declarations."""
        self.expansion: Expansion

    def read_shapes(self, task: str, facts: DatasetFacts) -> MetricNames:
        """Read the shapes, before all else; answers the names of the metrics that follow from them.

        What names no shape, an expression's `inference.batch_size` too, means the first.
        """
        inference = self._document.get("inference")
        if isinstance(inference, Mapping) and SHAPES in inference:
            shapes = read_shapes(cast("Mapping[Any, Any]", inference), task, facts, self._problems)
            self.shapes = tuple(shapes.values())
            for pointer, shape in list(shapes.items())[:1]:
                for name, value in shape.values.items():
                    self._add(f"inference.{name}", below(pointer, name), value)
        return MetricNames(tuple(shape.name for shape in self.shapes))

    def read(self, task: str) -> tuple[Entry, ...]:
        """The entries, each after those that it depends on, those of single layers apart; what is wrong is noted.

        After `read_shapes`.
        """
        self._variables()
        self._section("model", "")
        if task == "probe" and self._document.get("training", {}) != {}:
            self._problems.add("/training", "a probe is not trained", "leave training out")
        else:
            self._section("training", "training.")
        self._section("inference", "inference.")
        self._check_missing(task)
        self._check_lengths()
        written = self._complete()
        self.written = tuple(written.values())
        self.expansion = Expansion(written, task, self._problems)
        entries = self.expansion.entries
        opened = sum(entry.opening is not None for entry in entries.values())
        if opened > MAX_OPEN:
            self._problems.add("/model", f"{opened} parameters are open", f"open at most {MAX_OPEN}")
        return self._ordered(entries)

    def _variables(self) -> None:
        found = read_variables(self._document, self._problems)
        of_layers = (
            name for name, (_, value) in found.items() if isinstance(value, Mapping) and value.get("per_layer")
        )
        self.names = Names({name: declared for name, (declared, _) in found.items()}, frozenset(of_layers))
        for name, (_, value) in found.items():
            self._add(name, below(f"/{VARIABLES}", name.removeprefix(f"{VARIABLES}.")), value)

    def _section(self, section: str, prefix: str) -> None:
        written = self._document.get(section)
        if section not in self._document:
            return
        if not isinstance(written, Mapping):
            self._problems.add(f"/{section}", f"{shown(written)} is not a mapping", f"give parameters below {section}")
            return
        relative = list(self._walk(section, prefix, f"/{section}", cast("Mapping[Any, Any]", written)))
        for pointer, value in relative:
            self._relative_attention(pointer, value)

    def _walk(self, section: str, prefix: str, pointer: str, written: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
        """Read everything below `pointer`; yields where `relative_attention` is given, for when all else is known."""
        for key, value in written.items():
            name, place = f"{prefix}{key}", below(pointer, key)
            if name == f"inference.{SHAPES}":
                continue
            if self.shapes and name in _OF_SHAPES:
                self._problems.add(place, f"{key} is each shape's own", f"give it in {SHAPES}")
            elif declaration(name) is not None:
                self._add(name, place, value)
            elif name == RELATIVE_ATTENTION:
                yield place, value
            elif name == "training.betas":
                self._betas(place, value)
            elif Names().has_below(name):
                if isinstance(value, Mapping):
                    yield from self._walk(section, f"{name}.", place, cast("Mapping[Any, Any]", value))
                else:
                    below_it = (known for known in DECLARED if known.startswith(f"{name}."))
                    example = next(below_it, "layers.0.mlp.ffn_hidden_size")
                    detail = f"{name} is a section, not a parameter"
                    self._problems.add(place, detail, f"give parameters below it, such as {example}")
            else:
                self._problems.add(place, *unknown_parameter(name, section))

    def _add(self, name: str, pointer: str, value: Any) -> None:
        if name in self._places:
            self._problems.add(pointer, f"{name} is given twice: also at {self._places[name]}", "leave one of them out")
            return
        self._places[name] = pointer
        declared = self.names.declaration(name)
        assert declared is not None
        entry = self._reader.read(name, pointer, declared, value)
        if entry is not None:
            self._entries[name] = entry

    def _betas(self, pointer: str, value: Any) -> None:
        if not isinstance(value, list) or len(cast("list[Any]", value)) != 2:
            remedy = "write two numbers, for example [0.9, 0.99]; to search them, give beta1 and beta2"
            self._problems.add(pointer, f"betas is {shown(value)}", remedy)
            return
        for index, beta in enumerate(cast("list[Any]", value)):
            self._add(f"training.beta{index + 1}", below(pointer, index), beta)

    def _relative_attention(self, pointer: str, value: Any) -> None:
        if not isinstance(value, bool):
            remedy = f"write true or false; to search it, list {POSITION_TYPE}'s values"
            self._problems.add(pointer, f"relative_attention is {shown(value)}", remedy)
            return
        other = self._entries.get(POSITION_TYPE)
        place = self._places.get(POSITION_TYPE)
        if place is not None:
            says = other.value if other is not None else None
            agrees = says == RELATIVE if value else not _can_be(other, RELATIVE)
            if not agrees:
                detail = f"relative_attention: {shown(value)} contradicts position_embedding_type at {place}"
                self._problems.add(pointer, detail, "leave one of them out")
        elif value:
            self._add(POSITION_TYPE, pointer, RELATIVE)

    def _check_missing(self, task: str) -> None:
        kinds = self._kinds(task)
        for name, declared in DECLARATIONS.items():
            needed = declared.default is REQUIRED and any(KINDS[kind].has(name) for kind in kinds)
            if needed and not any(base_path(given) == name for given in self._places):
                self._problems.add("/model", f"{name} is missing", f"give {name}: {declared.meaning}")

    def _kinds(self, task: str) -> list[str]:
        """The kinds that a point of the document can have, as far as that is told without looking at points."""
        entry = self._entries.get("kind")
        if entry is None:
            return list(kinds_of(task)[:1]) if "kind" not in self._places else []
        if entry.opening is not None:
            return [str(value) for value in entry.opening.values]
        return [] if entry.value is None else [str(entry.value)]

    def _check_lengths(self) -> None:
        given = [f"training.{name}" for name in LENGTHS if f"training.{name}" in self._places]
        for name in given[1:]:
            detail = f"{given[0]} and {name} both say how long to train"
            self._problems.add(self._places[name], detail, f"give one of {', '.join(LENGTHS)}")

    def _complete(self) -> dict[str, Entry]:
        """The entries with every name in their expressions in full, known and of the right type."""
        completed: dict[str, Entry] = {}
        # In the order of the declarations, not of the document: databases do not keep the order of keys.
        for name in sorted(self._entries, key=_declared_place):
            entry = self._where_it_applies(self._entries[name])
            when = self._expression(entry, "when", entry.when)
            derived = self._expression(entry, "derived", entry.derived)
            completed[name] = entry.with_expressions(when, derived)
        return completed

    def _where_it_applies(self, entry: Entry) -> Entry:
        """A default space is absent at the points where its parameter does not apply."""
        condition = APPLIES.get(entry.name)
        if not entry.default_space or condition is None:
            return entry
        other = self._entries.get(condition.path)
        fixed = other is None or (other.value is not None and other.when is None)
        text = str(condition)
        if fixed or (entry.when is not None and entry.when.text.startswith(text)):
            return entry
        joined = text if entry.when is None else f"{text} and ({entry.when.text})"
        return entry.with_expressions(parse(joined, kind="when"), entry.derived)

    def _expression(self, entry: Entry, field: str, expression: Expression | None) -> Expression | None:
        if expression is None:
            return None
        pointer = below(entry.pointer, field)
        try:
            completed = self.names.completed(expression)
            check_types(completed, self.names, entry.declared if field == "derived" else None)
        except (UnknownNameError, ExpressionError) as error:
            self._problems.add(pointer, f"{shown(expression.text)}: {error.message}", error.remedy)
            return None
        for name in completed.names:
            is_given = name in self._places or self._is_layers(name) or is_variable(name)
            if not is_given and default_of(name) is None:
                remedy = f"give {name} in the document, or leave it out of the expression"
                self._problems.add(pointer, f"{name} is not given: its value follows from other parameters", remedy)
        return completed

    def _is_layers(self, name: str) -> bool:
        """Whether a name is one layer's of a parameter that the document gives for each."""
        entry = self._entries.get(base_path(name))
        return layer_name(name) is not None and entry is not None and entry.per_layer

    def _ordered(self, entries: dict[str, Entry]) -> tuple[Entry, ...]:
        """Every entry after those that it names, as near to the declarations' order as that allows."""
        ordered: dict[str, Entry] = {}
        # Depth first without recursion: (entry, the names that it still waits for).
        for root in entries:
            stack = [(root, iter(_needs(entries[root], entries)))]
            path = [root]
            while stack:
                name, needs = stack[-1]
                needed = next((need for need in needs if need not in ordered), None)
                if needed is None or name in ordered:
                    ordered.setdefault(name, entries[name])
                    stack.pop()
                    path.pop()
                elif needed in path:
                    self._cycle(entries, [*path[path.index(needed) :], needed])
                    return ()
                else:
                    stack.append((needed, iter(_needs(entries[needed], entries))))
                    path.append(needed)
        return tuple(ordered.values())

    def _cycle(self, entries: dict[str, Entry], names: list[str]) -> None:
        pointer = entries[names[0]].pointer
        remedy = "give one of them a value of its own"
        self._problems.add(pointer, f"a cycle: {' needs '.join(names)}; a cyclic definition has no value", remedy)


_OF_SHAPES = {f"inference.{name}" for name in SHAPE_PARAMETERS}

_PLACES = {name: place for place, name in enumerate(DECLARED)}


def _declared_place(name: str) -> tuple[int, tuple[int, int, int], str]:
    """Where a name stands in the order of the declarations: a layer's own after that of all layers; before them the
    document's variables, by their names."""
    found = layer_name(name)
    return (_PLACES.get(name, -1), (-1, 0, 0), name) if found is None else (_PLACES[found.path], place_of(found), name)


def _can_be(entry: Entry | None, value: str) -> bool:
    if entry is None:
        return False
    if entry.opening is not None:
        return value in entry.opening.values
    return entry.value == value


def _needs(entry: Entry, entries: Mapping[str, Entry]) -> list[str]:
    expressions = [expression for expression in (entry.when, entry.derived) if expression is not None]
    return [name for expression in expressions for name in expression.names if name in entries]


def nested_inference(entries: tuple[Entry, ...], shapes: tuple[NamedShape, ...]) -> Section:
    """The section `inference` as the normalized document writes it."""
    if not shapes:
        return nested_section(entries, "inference")
    shared = tuple(entry for entry in entries if entry.name not in _OF_SHAPES)
    return {SHAPES: [shape.document() for shape in shapes], **nested_section(shared, "inference")}


def nested_section(entries: tuple[Entry, ...], section: str) -> Section:
    """A section, or the variables, as the normalized document writes it."""
    prefix = "" if section == "model" else f"{section}."
    others = ("training.", "inference.", f"{VARIABLES}.") if section == "model" else ()
    return nested(
        {
            entry.name.removeprefix(prefix): entry.normalized()
            for entry in entries
            if entry.name.startswith(prefix) and not entry.name.startswith(others)
        }
    )
