"""Parameters that are independent in each layer: an entry of a document with `per_layer` to one entry for every layer.

A layer that not every point has is conditional on the number of layers. In the expressions of a layer's parameters, and
in rules, the name of a parameter that differs from layer to layer means that of the same layer.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from layers.declarations.per_layer import BLOCK_PATHS, DECODER_ONLY, STACKS, LayerName, layer_name
from layers.expressions.compiler import Expression, parse
from layers.expressions.names import default_of, is_variable
from layers.problems import Problems, below
from layers.sections import Section, Written
from layers.space.search_parameters import Entry

MAX_CHARACTERS = 10_000
"""Of a document's rules, conditions and derivations together, those of a layer counted for each: measuring feasibility
takes time by their length."""

MOST_LAYERS = 200
"""More parameters than that a document does not open: see `layers.space.parameters`."""


@dataclass(frozen=True, slots=True)
class _Stack:
    """How many layers the points of a document have: from `least` to `most`, as the parameter `count` says."""

    count: str
    least: int
    most: int


class Expansion:
    """Of the entries of one document, as they are written, names in full."""

    def __init__(self, written: Mapping[str, Entry], task: str, problems: Problems) -> None:
        self._written = written
        self._problems = problems
        self._independent = frozenset(name for name, entry in written.items() if entry.per_layer)
        self._characters = 0
        """Of the expressions that were written out for a layer."""
        self._named = {name: found for name in written if (found := layer_name(name)) is not None}
        self._stacks = self._count(task)
        self._entries = self._expanded()

    @property
    def entries(self) -> dict[str, Entry]:
        """Every entry of the document, those of single layers apart."""
        return self._entries

    def rules(self, pointer: str, rule: Expression) -> list[Expression]:
        """The rule for each layer, if it names what differs from layer to layer; else the rule itself."""
        if not self._independent and not self._named:
            return [rule]
        self._check_layers(pointer, rule)
        differing = [name for name in rule.names if self._may_differ(name)]
        if not differing:
            return [rule]
        return [self._of_layer(rule, stack, index, differing) for stack, index in self._layers()]

    def check_constraint(self, pointer: str, constraint: Expression) -> None:
        """Note a constraint that does not say which layer's parameter it means."""
        self._check_layers(pointer, constraint)
        for name in constraint.names:
            if name in self._independent or any(found.path == name for found in self._named.values()):
                detail = f"{name} differs from layer to layer"
                self._problems.add(pointer, detail, f"say which one it means, for example layers.0.{name}")

    def _count(self, task: str) -> dict[str, _Stack]:
        """The stacks of the task's models, as far as something there is a layer's own."""
        if not self._independent and not self._named:
            return {}
        first = next(entry for name, entry in self._written.items() if entry.per_layer or name in self._named)
        if task == "probe":
            remedy = "leave per_layer out" if is_variable(first.name) else "give its one block's value"
            self._problems.add(first.pointer, "a probe has no layers that could differ", remedy)
            return {}
        stacks = [self._stack("num_layers", first)]
        if task == "seq2seq":
            own = "num_encoder_layers" in self._written
            stacks.append(self._stack("num_encoder_layers", first) if own else stacks[0])
        return {name: stack for name, stack in zip(STACKS, stacks, strict=False) if stack is not None}

    def _stack(self, count: str, first: Entry) -> _Stack | None:
        entry = self._written.get(count)
        if entry is None:
            return None  # it is missing, which is noted elsewhere
        if entry.derived is not None or entry.when is not None:
            place = below(entry.pointer, "derived" if entry.derived is not None else "when")
            detail = f"{count} is not known before there is a point, and {first.name} is a parameter of each layer"
            self._problems.add(place, detail, f"give {count} a value, values, or min and max, without a condition")
            return None
        if entry.opening is None:
            values = [entry.value]
        else:
            values = entry.opening.values or (entry.opening.low, entry.opening.high)
        numbers = [int(value) for value in values if value is not None]
        if max(numbers) > MOST_LAYERS:
            detail = f"{count} may be {max(numbers)}, and {first.name} is a parameter of each layer"
            self._problems.add(entry.pointer, detail, f"at most {MOST_LAYERS} layers can differ")
            return None
        return _Stack(count, min(numbers), max(numbers))

    def _layers(self) -> Iterator[tuple[str, int]]:
        for name, stack in self._stacks.items():
            for index in range(stack.most):
                yield name, index

    def _expanded(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name, entry in self._written.items():
            if entry.per_layer:
                entries.update((own.name, own) for own in self._of_each_layer(entry))
            elif (found := self._named.get(name)) is not None:
                if self._exists(entry.pointer, found):
                    entries[name] = self._own(entry, found)
            else:
                self._check_shared(entry)
                entries[name] = entry
        for entry in entries.values():
            for field, expression in (("when", entry.when), ("derived", entry.derived)):
                if expression is not None:
                    self._check_layers(below(entry.pointer, field), expression, entries)
        return entries

    def _of_each_layer(self, entry: Entry) -> Iterator[Entry]:
        """An entry with `per_layer` for every layer that has it."""
        for stack, index in self._layers():
            name = LayerName(stack, index, entry.name)
            if stack != "layers" and entry.name in DECODER_ONLY:
                continue
            if str(name) in self._written:
                place = self._written[str(name)].pointer
                self._problems.add(place, f"{name} is given twice: also at {entry.pointer}", "leave one out")
            yield self._own(entry, name)

    def _own(self, entry: Entry, name: LayerName) -> Entry:
        """The entry as one layer's: absent if there is no such layer."""
        when, derived = (
            None if each is None else self._of_layer(each, name.stack, name.number, self._independent)
            for each in (entry.when, entry.derived)
        )
        stack = self._stacks[name.stack]
        if name.number >= stack.least:
            there = f"{stack.count} > {name.number}"
            when = parse(there if when is None else f"{there} and ({when.text})", kind="when")
        opening = None if entry.opening is None else replace(entry.opening, name=str(name))
        return replace(entry, name=str(name), opening=opening, per_layer=False).with_expressions(when, derived)

    def _of_layer(self, expression: Expression, stack: str, index: int, differing: Container[str]) -> Expression:
        self._characters += len(expression.text)
        if self._characters > MAX_CHARACTERS:
            # Before all of them are made: 2,000 characters for each of 200 layers take long to parse.
            self._problems.add("/rules", *too_long(f"more than {MAX_CHARACTERS:,}"))
            self._problems.raise_any()
        return expression.renamed(lambda name: f"{stack}.{index}.{name}" if name in differing else name)

    def _may_differ(self, name: str) -> bool:
        """Whether a rule's name has to be that of a layer: it is given by layer, or may follow from what is."""
        if name in self._independent or any(found.path == name for found in self._named.values()):
            return True
        return name in BLOCK_PATHS and name not in self._written and default_of(name) is None

    def _exists(self, pointer: str, name: LayerName) -> bool:
        stack = self._stacks.get(name.stack)
        if (
            stack is not None
            and name.number < stack.most
            and not (name.stack != "layers" and name.path in DECODER_ONLY)
        ):
            return True
        if stack is not None and name.number >= stack.most:
            detail = (
                f"{name}: there is no {name.layer}: {stack.count} is at most {stack.most}, and the first layer is 0"
            )
            self._problems.add(pointer, detail, f"name a layer from 0 to {stack.most - 1}")
        elif self._stacks:
            self._problems.add(pointer, f"{name}: there is no such parameter of an encoder here", f"give {name.path}")
        return False

    def _check_shared(self, entry: Entry) -> None:
        for field, expression in (("when", entry.when), ("derived", entry.derived)):
            for name in expression.names if expression is not None else ():
                if name in self._independent:
                    remedy = f"add per_layer: true to {entry.name}, or name one layer, such as layers.0.{name}"
                    if entry.name not in BLOCK_PATHS and not is_variable(entry.name):
                        remedy = f"name one layer, such as layers.0.{name}"
                    detail = f"{entry.name}: {name} differs from layer to layer"
                    self._problems.add(below(entry.pointer, field), detail, remedy)

    def _check_layers(self, pointer: str, expression: Expression, entries: Mapping[str, Entry] | None = None) -> None:
        """Note names of layers that no point has, or whose parameter is not a layer's own."""
        known = self._entries if entries is None else entries
        for name in expression.names:
            found = layer_name(name)
            if found is None or name in known or not self._exists(pointer, found):
                continue
            if entries is not None or not self._may_differ(found.path):
                detail = f"{found.path} is the same in all layers"
                self._problems.add(pointer, detail, f"write {found.path}, or give {found.path} per_layer: true")


def too_long(characters: str) -> tuple[str, str]:
    """What is wrong with expressions of so many characters, and what to try."""
    detail = f"the rules, conditions and derivations have {characters} characters in all"
    return detail, f"write at most {MAX_CHARACTERS:,}, counted for each layer: they are calculated for every point"


def own_names(path: str, counts: Section) -> list[str]:
    """What a parameter with `per_layer` is called in each layer that a point may have.

    `counts`: `num_layers`, and `num_encoder_layers` if the model has an encoder beside the decoder, as a normalized
    document writes them.
    """
    return [
        str(LayerName(stack, number, path))
        for stack, count in STACKS.items()
        if count in counts and not (stack != "layers" and path in DECODER_ONLY)
        for number in range(_most(counts[count]))
    ]


def _most(written: Written) -> int:
    """The largest value of a count as a document writes it."""
    if not isinstance(written, dict):
        return int(cast("int", written))
    several, one = cast("list[int]", written.get("values", [])), (written.get("max", 0), written.get("value", 0))
    return max(int(value) for value in (*several, *cast("tuple[int, int]", one)))
