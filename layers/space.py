"""A sweep document to its space: open parameters, conditions and rules. Everything that is wrong with it in one go.

`parse_document` reads a document, `examine` surveys its space, `read_document` does both and reports both's problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layers import document as documents
from layers.base import REQUIRED, Scalar
from layers.checking import TypeMismatch, check_types
from layers.constraints import Constraint, parse_constraint
from layers.document import FieldReader, FindDataset, FindStart, lacking_metric
from layers.expressions import Expression, ExpressionError, Kind, parse
from layers.metrics import METRICS
from layers.model import DECLARATIONS
from layers.names import DECLARED, UnknownName, complete_names, default_of
from layers.openings import Entry, OpenParameter
from layers.parameters import order, read_parameters
from layers.points import MAX_POINTS, PointError, Rejection, Rule, Space, flatten
from layers.problems import DocumentError, Problem, Problems, shown
from layers.starts import Start, StartReader
from layers.survey import SAMPLES, Survey, survey

__all__ = [
    "MAX_POINTS",
    "SAMPLES",
    "Constraint",
    "DocumentError",
    "OpenParameter",
    "PointError",
    "Problem",
    "Rejection",
    "Rule",
    "Space",
    "Start",
    "Survey",
    "SweepDocument",
    "examine",
    "flatten",
    "parse_constraint",
    "parse_document",
    "read_document",
]

LANGUAGE = "arithmetic, comparison, and or not in, a if c else b, min max round_up floor ceil log2"


@dataclass(frozen=True, slots=True)
class SweepDocument:
    """A sweep document as it was understood. `normalized` is the same document with defaults filled in and names in
    full: parsing it again gives the same. `notes` are remarks that refuse nothing."""

    name: str
    task: str
    dataset: str | None
    objectives: tuple[dict[str, str], ...]
    constraints: tuple[Constraint, ...]
    rules: tuple[str, ...]
    budget: dict[str, Any]
    search: dict[str, Any]
    starts: tuple[Start, ...]
    target_runtime: str | None
    allow_sparse: bool
    space: Space = field(compare=False)
    normalized: dict[str, Any]
    notes: tuple[Problem, ...] = field(default=(), compare=False)


def no_start(reference: str) -> Mapping[str, Scalar] | None:
    """Knows no trials."""
    return None


def parse_document(
    document: Any, *, find_dataset: FindDataset, find_start: FindStart = no_start
) -> SweepDocument:
    """Read a sweep document. Raises DocumentError with every problem.

    `find_dataset(name)` gives {"task", "tokenizer", "facts"} or None; `find_start("trial:<id>")` gives that trial's
    configuration or its values by flat names, or None. The space is not surveyed: see `examine`.
    """
    problems = Problems()
    sweep = _Reading(document, problems).read(find_dataset, find_start)
    problems.raise_any()
    assert sweep is not None
    return sweep


def examine(sweep: SweepDocument) -> Survey:
    """Survey the space. Raises DocumentError where a point cannot be had, or none can become a trial."""
    problems = Problems()
    surveyed = _examine(sweep, problems)
    problems.raise_any()
    return surveyed


def read_document(
    document: Any, *, find_dataset: FindDataset, find_start: FindStart = no_start
) -> tuple[SweepDocument, Survey]:
    """`parse_document` and `examine`: where a sweep enters. Raises DocumentError with the problems of both."""
    problems = Problems()
    sweep = _Reading(document, problems).read(find_dataset, find_start)
    if sweep is None:
        problems.raise_any()
        raise AssertionError("a document that was not read has a problem")
    surveyed = _examine(sweep, problems)
    problems.raise_any()
    return sweep, surveyed


def _examine(sweep: SweepDocument, problems: Problems) -> Survey:
    space = sweep.space
    surveyed = space.survey()
    pointers = {entry.name: entry.pointer for entry in space.entries}
    for error in surveyed.errors:
        problems.add(pointers.get(error.name, "/model"), str(error), error.remedy or "change it so that every point has a value")
    overridden = surveyed.sampled and sweep.allow_sparse
    if surveyed.feasible_share > 0 or surveyed.errors or overridden:
        return surveyed
    rule, share = next(iter(surveyed.rejections.items()))
    rejection = surveyed.examples[rule]
    of = f"{SAMPLES:,} sampled points" if surveyed.sampled else f"{surveyed.points:,} points"
    others = [f"{name} ({part:.1%})" for name, part in list(surveyed.rejections.items())[1:4]]
    also = f"; then {', '.join(others)}" if others else ""
    remedy = "loosen it, or widen the parameters that it names"
    if surveyed.sampled:
        remedy += "; if few but some points keep it, set allow_sparse: true"
    detail = f"none of {of} can become a trial: {rule} rejects {share:.1%}, for example {rejection.message}{also}"
    problems.add(_pointer_of(sweep, rule, pointers), detail, remedy)
    return surveyed


def _pointer_of(sweep: SweepDocument, rule: str, pointers: Mapping[str, str]) -> str:
    for known in sweep.space.rules:
        if known.text == rule:
            return known.pointer
    for index, constraint in enumerate(sweep.constraints):
        if constraint.text == rule:
            return f"/constraints/{index}"
    return pointers.get(rule, "/model")


class _Reading:
    """One document on its way to a SweepDocument."""

    def __init__(self, document: Any, problems: Problems) -> None:
        self._document: dict[Any, Any] = document if isinstance(document, dict) else {}
        self._is_mapping = isinstance(document, dict)
        self._problems = problems
        self._notes = Problems()
        self._fields = FieldReader(self._document, problems)

    def read(self, find_dataset: FindDataset, find_start: FindStart) -> SweepDocument | None:
        """The sweep, or None where it is not understood well enough to make a space of it."""
        if not self._is_mapping:
            self._problems.add("", "the document is not a mapping", "begin with name, task, dataset, model, objectives")
            return None
        fields = self._fields
        fields.fields()
        name, task = fields.name(), fields.task()
        dataset, about = fields.dataset(task, find_dataset)
        runtime = fields.target_runtime()
        objectives = fields.objectives(lambda metric: lacking_metric(metric, task, about, runtime))
        budget, search, allow_sparse = fields.budget(), fields.search(), fields.allow_sparse()
        entries = self._entries(task)
        rules = self._rules()
        constraints = self._constraints(task, about, runtime)
        starts = fields.starts()
        if search["sampler"] == "grid":
            self._refuse_continuous(entries)
        if len(self._problems):
            return None
        space = Space(
            task=task,
            facts=about.get("facts", {}),
            entries=entries,
            defaults=_defaults(entries, rules),
            rules=rules,
            constraints=tuple(constraint for constraint in constraints if constraint.stage == "static"),
        )
        return SweepDocument(
            name=name,
            task=task,
            dataset=dataset,
            objectives=objectives,
            constraints=constraints,
            rules=tuple(rule.text for rule in rules),
            budget=budget,
            search=search,
            starts=StartReader(space, find_start, self._problems).read(starts),
            target_runtime=runtime,
            allow_sparse=allow_sparse,
            space=space,
            normalized={},
            notes=(),
        )
