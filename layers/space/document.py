"""A sweep document to its space: open parameters, conditions and rules. Everything that is wrong with it in one go.

`parse_document` reads a document, `read_document` measures the feasibility of its space as well and reports the
problems of both; `begin` does the first half of that, for those who have the measured feasibility made elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from layers.checkpoints.matching import RULE as TRANSFORMERS_RULE
from layers.configuration import flatten
from layers.dataset_facts import DatasetDescription, DatasetFacts, fixed_lengths, longest_sequence
from layers.dataset_facts import too_long as sequence_too_long
from layers.declarations.per_layer import base_path
from layers.expressions.compiler import Expression, ExpressionError, parse
from layers.expressions.constraints import Constraint, parse_constraint, read_constraint
from layers.expressions.metric_names import MetricNameError, MetricNames
from layers.expressions.names import VARIABLES, Names, UnknownNameError, default_of, is_variable
from layers.expressions.types import check_types
from layers.metrics import METRICS
from layers.metrics import metric as declaration_of
from layers.parameter import Scalar
from layers.problems import DocumentError, Problem, Problems, shown
from layers.space.checks.lacking_metrics import lacking_metric, remedy_of_lacking
from layers.space.checks.misfits import note_forward_lengths, note_misfits
from layers.space.document_fields import (
    Budget,
    FieldReader,
    FindDataset,
    FindStart,
    Objective,
    SearchSettings,
)
from layers.space.enumeration import MAX_POINTS, expression_characters
from layers.space.evaluation import PointError, Rejection
from layers.space.feasibility import SAMPLES, FeasibilityReport, measure_feasibility
from layers.space.normalized_document import (
    NamedDataset,
    NamedRequirement,
    NamedTarget,
    NamedVariables,
    NormalizedDocument,
)
from layers.space.parameters import SectionReader, nested_inference, nested_section
from layers.space.per_layer_expansion import MAX_CHARACTERS, too_long
from layers.space.replicates import check_replicates
from layers.space.search_parameters import Entry, OpenParameter
from layers.space.space import Rule, Space
from layers.space.starts import Start, StartReader
from layers.space.variables import check_names, check_used

__all__ = [
    "MAX_POINTS",
    "SAMPLES",
    "Constraint",
    "DocumentError",
    "FeasibilityReport",
    "OpenParameter",
    "PointError",
    "Problem",
    "Rejection",
    "Rule",
    "Space",
    "Start",
    "SweepDocument",
    "UnexaminedSpace",
    "begin",
    "flatten",
    "parse_constraint",
    "parse_document",
    "read_document",
]


@dataclass(frozen=True, slots=True)
class SweepDocument:
    """A sweep document as it was understood. `normalized` is the same document with defaults filled in and names in
    full: parsing it again gives the same. `notes` are remarks that refuse nothing."""

    name: str
    task: str
    dataset: str | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    rules: tuple[str, ...]
    budget: Budget
    search: SearchSettings
    starts: tuple[Start, ...]
    target_runtime: str | None
    target_labels: Mapping[str, str]
    """Those of the workers that may execute its trials; empty: any."""
    allow_sparse: bool
    space: Space = field(compare=False)
    normalized: NormalizedDocument
    notes: tuple[Problem, ...] = field(default=(), compare=False)


def no_start(reference: str) -> Mapping[str, Scalar] | None:
    """Knows no trials."""
    return None


def parse_document(document: Any, *, find_dataset: FindDataset, find_start: FindStart = no_start) -> SweepDocument:
    """Read a sweep document. Raises DocumentError with every problem.

    `find_dataset(name)` gives what is known of it or None; `find_start("trial:<id>")` gives that trial's
    configuration or its values by flat names, or None. The space is not measured: see `read_document`.
    """
    problems = Problems()
    sweep = _Reading(document, problems).read(find_dataset, find_start)
    problems.raise_any()
    assert sweep is not None
    return sweep


def read_document(
    document: Any, *, find_dataset: FindDataset, find_start: FindStart = no_start
) -> tuple[SweepDocument, FeasibilityReport]:
    """Read a document and measure the feasibility of its space: where a sweep enters. Raises DocumentError with the
    problems of both."""
    read = begin(document, find_dataset=find_dataset, find_start=find_start)
    feasibility = measure_feasibility(read.sweep.space)
    read.examine(feasibility)
    return read.sweep, feasibility


def begin(document: Any, *, find_dataset: FindDataset, find_start: FindStart = no_start) -> UnexaminedSpace:
    """Read a document as far as that needs no measured feasibility. Raises DocumentError if there is no space to
    measure."""
    problems = Problems()
    if isinstance(document, Mapping):
        check_names(cast("Mapping[Any, Any]", document), problems)
    sweep = _Reading(document, problems).read(find_dataset, find_start)
    if sweep is None:
        problems.raise_any()
        raise AssertionError("a document that was not read has a problem")
    return UnexaminedSpace(sweep, problems)


@dataclass(frozen=True, slots=True)
class UnexaminedSpace:
    """A document that was read; what is wrong with it is told together with what its measured feasibility finds."""

    sweep: SweepDocument
    _problems: Problems

    def examine(self, feasibility: FeasibilityReport) -> None:
        """Raise DocumentError if anything is wrong, a point cannot be had, or none can become a trial."""
        _refuse_costs_under_load(self.sweep, self._problems)
        _examine(self.sweep, feasibility, self._problems)
        self._problems.raise_any()


def _refuse_costs_under_load(sweep: SweepDocument, problems: Problems) -> None:
    """A sweep that was accepted by an older version goes on, so this is no part of reading a document."""
    if sweep.budget["parallel"] == 1:
        return
    named = [(f"/objectives/{index}/metric", [each["metric"]]) for index, each in enumerate(sweep.objectives)]
    named += [(f"/constraints/{index}", list(each.metrics)) for index, each in enumerate(sweep.constraints)]
    for pointer, metrics in named:
        for metric in metrics:
            if declaration_of(metric).depends_on_load:
                detail = f"{metric} depends on what else runs on the device, and several trials may run at once"
                problems.add(pointer, detail, "set budget.parallel: 1, or choose another metric")


def _examine(sweep: SweepDocument, feasibility: FeasibilityReport, problems: Problems) -> None:
    space = sweep.space
    # No point has such a length: what its rejection would advise is of rules and ranges.
    if note_forward_lengths(space.entries, sweep.task, problems):
        return
    pointers = {entry.name: entry.pointer for entry in space.entries}
    for error in feasibility.errors:
        pointer = _pointer_of(sweep, error.name, pointers)
        remedy = error.remedy or "change it so that it has a value at every point, or exclude the point by a rule"
        problems.add(pointer, f"{error.name}: {error.message}", remedy)
    overridden = feasibility.sampled and sweep.allow_sparse
    if feasibility.feasible_share > 0 or feasibility.errors or overridden:
        return
    rule, share = next(iter(feasibility.rejections.items()))
    rejection = feasibility.examples[rule]
    of = f"{feasibility.judged:,} sampled points" if feasibility.sampled else _all_points(feasibility.points or 0)
    others = [f"{name} ({part:.1%})" for name, part in list(feasibility.rejections.items())[1:4]]
    also = f"; then {', '.join(others)}" if others else ""
    remedy = "loosen it, or widen the parameters that it names"
    if feasibility.sampled:
        remedy += "; if few but some points keep it, set allow_sparse: true"
    detail = f"none of {of} can become a trial: {rule} rejects {share:.1%}, for example {rejection.message}{also}"
    problems.add(_pointer_of(sweep, rule, pointers), detail, remedy)


def _all_points(points: int) -> str:
    return "the space's only point" if points == 1 else f"{points:,} points"


def _pointer_of(sweep: SweepDocument, rule: str, pointers: Mapping[str, str]) -> str:
    for known in sweep.space.rules:
        if known.text == rule:
            return known.pointer
    if rule == TRANSFORMERS_RULE:
        return "/require"
    for index, constraint in enumerate(sweep.constraints):
        if constraint.text == rule:
            return f"/constraints/{index}"
    section, _, name = rule.partition(".")
    # What the document leaves to a default is wrong where it would stand.
    elsewhere = f"/{section}/{name}" if section in ("training", "inference") else "/model"
    return pointers.get(rule, elsewhere)


class _Reading:
    """One document on its way to a SweepDocument."""

    def __init__(self, document: Any, problems: Problems) -> None:
        self._document: dict[Any, Any] = document if isinstance(document, dict) else {}
        self._is_mapping = isinstance(document, dict)
        self._problems = problems
        self._notes: list[Problem] = []
        self._fields = FieldReader(self._document, problems, self._notes)

    def read(self, find_dataset: FindDataset, find_start: FindStart) -> SweepDocument | None:
        """The sweep, or None if it is not understood well enough to make a space of it."""
        if not self._is_mapping:
            self._problems.add("", "the document is not a mapping", "begin with name, task, dataset, model, objectives")
            return None
        fields = self._fields
        fields.fields()
        name, task = fields.name(), fields.task()
        dataset, about = fields.dataset(task, find_dataset)
        facts: DatasetFacts = {} if about is None else about["facts"]
        wanted = fields.target()
        runtime = wanted.get("runtime")
        reader = SectionReader(self._document, self._problems, self._notes)
        metrics = reader.read_shapes(task, facts)
        objectives = fields.objectives(
            metrics, lambda metric: lacking_metric(metric, task, about, runtime, generates=fields.generates())
        )
        budget, search, allow_sparse = fields.budget(), fields.search(), fields.allow_sparse()
        require = fields.require(task)
        entries = reader.read(task)
        written_rules = self._rules(reader.names)
        rules = tuple(
            Rule(expression.text, rule.pointer, expression)
            for rule in written_rules
            for expression in reader.expansion.rules(rule.pointer, rule.expression)
        )
        constraints = self._constraints(reader.names, metrics, task, about, runtime)
        for index, constraint in enumerate(constraints):
            reader.expansion.check_constraint(f"/constraints/{index}", constraint.expression)
        if not len(self._problems):
            # An expression that could not be read may have named one.
            named = _named(reader.written, *(each.expression for each in (*written_rules, *constraints)))
            check_used(reader.names.variables, named, self._problems)
        self._check_length(entries, rules)
        self._refuse_several_modes(entries)
        self._check_sequences(entries, longest_sequence(task, facts))
        starts = fields.starts()
        if search["sampler"] == "grid":
            self._refuse_continuous(entries)
        opened = {entry.name for entry in entries if entry.opening}
        decided_by = [each["metric"] for each in objectives]
        check_replicates(search.get("replicates", 0), task, decided_by, opened, self._problems)
        if len(self._problems):
            note_misfits(entries, {name for rule in rules for name in rule.expression.names}, self._problems)
            note_forward_lengths(entries, task, self._problems)
            return None
        space = Space(
            task=task,
            facts=facts,
            entries=entries,
            defaults=_defaults(entries, rules, fixed_lengths(task, facts)),
            rules=rules,
            constraints=constraints,
            leaves_for_transformers=require is not None,
            shapes=reader.shapes,
        )
        named_dataset: NamedDataset = {} if dataset is None else {"dataset": dataset}
        has_variables = bool(reader.names.variables)
        named_variables: NamedVariables = (
            {"variables": nested_section(reader.written, VARIABLES)} if has_variables else {}
        )
        named_requirement: NamedRequirement = {} if require is None else {"require": require}
        named_target: NamedTarget = {"target": wanted} if wanted else {}
        return SweepDocument(
            name=name,
            task=task,
            dataset=dataset,
            objectives=objectives,
            constraints=constraints,
            rules=tuple(rule.text for rule in written_rules),
            budget=budget,
            search=search,
            starts=StartReader(space, reader.names, find_start, self._problems).read(starts),
            target_runtime=runtime,
            target_labels=wanted.get("labels", {}),
            allow_sparse=allow_sparse,
            space=space,
            normalized={
                "name": name,
                "task": task,
                **named_dataset,
                **named_variables,
                "model": nested_section(reader.written, "model"),
                "training": nested_section(reader.written, "training"),
                "inference": nested_inference(reader.written, reader.shapes),
                "objectives": [objective.copy() for objective in objectives],
                "constraints": [constraint.text for constraint in constraints],
                "rules": [rule.text for rule in written_rules],
                "budget": budget.copy(),
                "search": search.copy(),
                "start_from": starts,
                **named_requirement,
                **named_target,
                "allow_sparse": allow_sparse,
            },
            notes=tuple(self._notes),
        )

    def _rules(self, names: Names) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        for pointer, text in self._fields.texts("rules", "hidden_size % attention.num_attention_heads == 0"):
            expression = self._condition(names, pointer, text)
            if expression is not None:
                rules.append(Rule(expression.text, pointer, expression))
        return tuple(rules)

    def _condition(self, names: Names, pointer: str, text: str) -> Expression | None:
        try:
            expression = names.completed(parse(text, kind="rule"))
            check_types(expression, names)
        except (ExpressionError, UnknownNameError) as error:
            metric = any(name in text for name in METRICS)
            remedy = "conditions on metrics belong in constraints" if metric else error.remedy
            self._problems.add(pointer, f"{shown(text)}: {error.message}", remedy)
            return None
        if not expression.names:
            self._problems.add(pointer, f"{shown(text)} names no parameter", "leave it out, or name one")
            return None
        return expression

    def _constraints(
        self, names: Names, metrics: MetricNames, task: str, about: DatasetDescription | None, runtime: str | None
    ) -> tuple[Constraint, ...]:
        constraints: list[Constraint] = []
        for pointer, text in self._fields.texts("constraints", "latency_ms_p99 <= 2.0"):
            try:
                # Names first: a misspelt metric is told apart from a constraint without one.
                expression = names.completed(read_constraint(text), metrics)
                check_types(expression, names)
                constraint = parse_constraint(expression.text)
            except (ExpressionError, MetricNameError, UnknownNameError) as error:
                self._problems.add(pointer, f"{shown(text)}: {error.message}", error.remedy)
                continue
            variable = next(filter(is_variable, expression.names), None)
            if variable is not None and constraint.stage != "static":
                remedy = "name what is derived from it; constraints on parameter_count and flops may name variables"
                self._problems.add(pointer, f"{shown(text)}: a trial's results know no {variable}", remedy)
            generates = self._fields.generates()
            for metric in constraint.metrics:
                reason = lacking_metric(metric, task, about, runtime, generates=generates)
                if reason is not None:
                    self._problems.add(pointer, f"{shown(text)}: {reason}", remedy_of_lacking(metric, generates))
            constraints.append(constraint)
        return tuple(constraints)

    def _check_length(self, entries: tuple[Entry, ...], rules: tuple[Rule, ...]) -> None:
        characters = expression_characters(entries) + sum(len(rule.text) for rule in rules)
        if characters > MAX_CHARACTERS:
            self._problems.add("/rules", *too_long(f"{characters:,}"))

    def _check_sequences(self, entries: tuple[Entry, ...], longest: int | None) -> None:
        """Note every length, also among those to search, that the dataset has no sequence of."""
        for entry in entries:
            if longest is None or entry.name not in ("training.sequence_length", "inference.sequence_length"):
                continue
            for pointer, length in entry.written_numbers():
                if length > longest:
                    detail, remedy = sequence_too_long(int(length), longest)
                    self._problems.add(pointer, f"{entry.name}: {detail}", remedy)

    def _refuse_several_modes(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.name == "inference.mode" and (entry.value is None or entry.when is not None):
                detail = f"{entry.name} is the same for all trials of a sweep: their metrics are"
                self._problems.add(entry.pointer, detail, "write mode: generate, or leave it out")

    def _refuse_continuous(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.opening is not None and entry.opening.size is None:
                detail = f"{entry.name} is continuous: a grid has no end there"
                self._problems.add(entry.pointer, detail, "give it a step or values, or choose another sampler")


def _named(entries: tuple[Entry, ...], *expressions: Expression) -> set[str]:
    """The parameters that expressions name, those of `entries` included; of a layer's own name the parameter."""
    every = [*expressions] + [each for entry in entries for each in (entry.when, entry.derived) if each is not None]
    return {base_path(name) for expression in every for name in expression.names}


def _defaults(
    entries: tuple[Entry, ...], rules: tuple[Rule, ...], fixed_lengths: Mapping[str, int]
) -> dict[str, Scalar]:
    """What expressions name of the declarations and the document does not give, if it is one value."""
    given = {entry.name for entry in entries}
    expressions = [rule.expression for rule in rules]
    expressions += [each for entry in entries for each in (entry.when, entry.derived) if each is not None]
    named = {name for expression in expressions for name in expression.names} - given
    of_data: dict[str, Scalar] = {f"inference.{name}": length for name, length in fixed_lengths.items()}
    found = {name: of_data.get(name, default_of(name)) for name in sorted(named)}
    return {name: value for name, value in found.items() if value is not None}
