"""The space of a sweep: its open parameters in the order in which they are suggested, and what makes a point of it.

A point is given by the values chosen for the open parameters that are active there (`chosen`: name -> value). Names are
paths below `model`, or `training.…` and `inference.…`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from layers import completion
from layers.capabilities import Capabilities, lacking_option, unsupported
from layers.checkpoints.matching import RULE, misfit_of
from layers.configuration import Configuration, flatten
from layers.dataset_facts import DatasetFacts, model_facts
from layers.declarations import per_layer
from layers.declarations import training as trainings
from layers.declarations.assembly.block import Shape
from layers.declarations.assembly.models import config_of
from layers.declarations.inference import parameters as inferences
from layers.declarations.inference.generation import kv_cache_bytes
from layers.declarations.inference.shapes import NamedShape
from layers.declarations.model import broken_rules
from layers.declarations.per_layer import layer_name
from layers.expressions.compiler import EvaluationError, Expression
from layers.expressions.constraints import Constraint
from layers.expressions.names import VARIABLES, is_variable
from layers.metrics import named_at
from layers.parameter import ParameterError, Scalar
from layers.problems import did_you_mean
from layers.space.enumeration import Walked, Walker, draw, with_needs
from layers.space.evaluation import (
    PointError,
    Rejection,
    chosen_value,
    condition_of,
    evaluate_entry,
    is_active,
    seen_at,
)
from layers.space.point_index import PointIndex, indexed
from layers.space.search_parameters import Entry, OpenParameter


@dataclass(frozen=True, slots=True)
class Rule:
    """A user's rule, names completed. It is skipped at points where a parameter that it names is absent."""

    text: str
    pointer: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Completed:
    """A point with every default filled in, ready to be executed; or the reason why it cannot be completed."""

    model: dict[str, Scalar]
    training: dict[str, Scalar]
    inference: dict[str, Scalar]
    """Of several shapes the first."""


@lru_cache(maxsize=1 << 16)
def section_of(name: str) -> tuple[str, str]:
    """The section of a name (`model`, `training`, `inference`, `variables`), and the name below it; of one layer's
    variable the whole name."""
    if is_variable(name):
        return VARIABLES, name.removeprefix(f"{VARIABLES}.")
    head, _, rest = name.partition(".")
    return (head, rest) if head in ("training", "inference") else ("model", name)


class Space:
    """The open, fixed and derived parameters of one sweep, and its rules. Immutable: threads may share it."""

    def __init__(
        self,
        *,
        task: str,
        facts: DatasetFacts,
        entries: tuple[Entry, ...],
        defaults: Mapping[str, Scalar],
        rules: tuple[Rule, ...],
        constraints: tuple[Constraint, ...],
        leaves_for_transformers: bool = False,
        shapes: tuple[NamedShape, ...] = (),
    ) -> None:
        """`entries` come in an order in which each depends only on earlier ones; `defaults` are what `when` and
        `derived` may name of the declarations without the document giving it; `constraints` are all of the sweep's:
        the static ones are judged, and each must have a value at every point that becomes a trial. If a point
        `leaves_for_transformers`, one that is of no architecture there becomes no trial. `shapes` are those of
        `inference.shapes`, completed."""
        self.task = task
        self.facts = facts.copy()
        self.leaves_for_transformers = leaves_for_transformers
        self.entries = entries
        self.rules = rules
        self.shapes = shapes
        self.constraints = tuple(constraint for constraint in constraints if constraint.stage == "static")
        """Those that are judged before there is a trial."""
        self.calculated = tuple(constraint for constraint in constraints if constraint.may_fail)
        """Those, of any stage, that may have no value at some point."""
        self.open: tuple[OpenParameter, ...] = tuple(entry.opening for entry in entries if entry.opening is not None)
        self._defaults = dict(defaults)
        self._index: tuple[PointIndex | None] | None = None
        self._entry = {entry.name: entry for entry in entries}
        self._given = frozenset(self._entry)
        self._variables = tuple(filter(is_variable, self._entry))
        known = self._given | frozenset(defaults)
        self.early_rules = tuple(rule for rule in rules if known.issuperset(rule.expression.names))
        self.late_rules = tuple(rule for rule in rules if rule not in self.early_rules)
        late = [rule.expression for rule in self.late_rules]
        self._names_layers = any(layer_name(name) is not None for expression in late for name in expression.names)

    # --- one point ------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, Scalar]:
        """Where a point begins: the declarations' defaults that expressions name and the document does not give."""
        return dict(self._defaults)

    def active(self, parameter: OpenParameter, chosen: Mapping[str, Scalar]) -> bool:
        """Whether `parameter` is to be suggested, given what was chosen for the ones before it."""
        if parameter.when is None:
            return True
        environment = dict(self._defaults)
        for entry in self.entries:
            if entry.name == parameter.name:
                return is_active(entry, environment)
            if entry.opening is not None:
                if entry.name in chosen and is_active(entry, environment):
                    environment[entry.name] = chosen[entry.name]
            elif is_active(entry, environment):
                evaluate_entry(entry, environment)
        raise KeyError(parameter.name)

    def resolve(self, chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """All values of the point: fixed, chosen and derived; inactive parameters are absent.

        Raises PointError if `chosen` is no point: a name too many or too few, a value outside, a derived value that
        cannot be had (validation refuses spaces where it finds one).
        """
        for name in chosen:
            if self._entry.get(name) is None or self._entry[name].opening is None:
                raise PointError(
                    name, "is not an open parameter", did_you_mean(name, [known.name for known in self.open])
                )
        environment = dict(self._defaults)
        for entry in self.entries:
            if not is_active(entry, environment):
                if entry.name in chosen:
                    raise PointError(entry.name, f"is absent here: {condition_of(entry)} is false", "leave it out")
            elif entry.opening is not None:
                environment[entry.name] = chosen_value(entry.opening, chosen)
            else:
                error = evaluate_entry(entry, environment)
                if error is not None:
                    raise error
        return self.values_of(environment)

    def values_of(self, environment: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What of `environment` the document gives, in its order."""
        return {entry.name: environment[entry.name] for entry in self.entries if entry.name in environment}

    def chosen_of(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of the open parameters that are active at a point."""
        return {parameter.name: values[parameter.name] for parameter in self.open if parameter.name in values}

    def variables_of(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of the document's own variables at a point: what of it is in no configuration."""
        return {name: values[name] for name in self._variables if name in values}

    def shown(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of the open and the derived parameters: what a leaderboard shows."""
        searched = [entry.name for entry in self.entries if entry.opening is not None or entry.derived is not None]
        return {name: values[name] for name in searched if name in values}

    def configuration(self, values: Mapping[str, Scalar]) -> Configuration:
        """What a worker executes: task, model, training and inference, every default filled in, paths flat below each.

        Raises ParameterError if `judge` rejects the point for its values.
        """
        return self.configured(self.complete(values))

    def configured(self, completed: Completed) -> Configuration:
        """The same of what `complete_or_reject` returned."""
        found: Configuration = {
            "task": self.task,
            "model": completed.model,
            "training": completed.training,
            "inference": completed.inference,
        }
        if self.shapes:
            found["shapes"] = [shape.document() for shape in self.shapes]
        return found

    def complete(self, values: Mapping[str, Scalar]) -> Completed:
        """Every default filled in. Raises ParameterError."""
        inference = self.complete_inference(values)
        training = self.complete_training(values, inference)
        model = self.complete_model(values, inference, training)
        return Completed(model, training, inference)

    def complete_inference(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The section `inference`. Raises ParameterError."""
        return inferences.complete_inference(_below("inference", values), self.task, self.facts)

    def complete_training(self, values: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The section `training`; a probe has none. Raises ParameterError."""
        if self.task == "probe":
            return {}
        return trainings.complete_training(_below("training", values), inference, self.task, self.facts)

    def complete_model(
        self, values: Mapping[str, Scalar], inference: Mapping[str, Scalar], training: Mapping[str, Scalar]
    ) -> dict[str, Scalar]:
        """The section `model`, for the dataset and the longest sequence elsewhere. Raises ParameterError."""
        measured = [shape.values for shape in self.shapes]
        lengths = {
            name: max(int(section[name]) for section in (inference, training, *measured) if name in section)
            for name in ("sequence_length", "source_length")
            if name in inference
        }
        if self.task == "probe":
            lengths.setdefault("source_length", lengths["sequence_length"])
        model = completion.complete(self.task, _below("model", values), model_facts(self.facts, lengths))
        completion.check_model(self.task, model, inference, training, self.facts)
        return model

    def static_metrics(self, values: Mapping[str, Scalar]) -> dict[str, float]:
        """`parameter_count` and `flops`, which need no device. Raises ParameterError as `configuration`."""
        return self._static_metrics(self.complete(values))

    def _static_metrics(self, completed: Completed) -> dict[str, float]:
        return static_metrics(completed.model, completed.inference, self.shapes)

    # --- whether it becomes a trial -------------------------------------------------------------------------------

    def judge(self, values: Mapping[str, Scalar], capabilities: Capabilities | None = None) -> Rejection | None:
        """Why the point becomes no trial, or None: as `complete_or_reject` finds."""
        found = self.complete_or_reject(values, capabilities)
        return found if isinstance(found, Rejection) else None

    def complete_or_reject(
        self, values: Mapping[str, Scalar], capabilities: Capabilities | None = None
    ) -> Completed | Rejection:
        """The completed point, or why it becomes no trial: the user's rules, the declarations' bounds and rules, the
        static constraints, and if they are given the target's `capabilities`, in this order. The first one counts.
        """
        outcome = self.judge_rules(self.early_rules, {**self._defaults, **values})
        if outcome is not None:
            return outcome.rejection() if isinstance(outcome, PointError) else outcome
        try:
            completed = self.complete(values)
        except ParameterError as error:
            return Rejection(error.path, str(error), 1.0)
        outcome = self.judge_completed(values, completed) or _judge_target(
            completed.model, completed.inference, capabilities
        )
        if outcome is None:
            return completed
        return outcome.rejection() if isinstance(outcome, PointError) else outcome

    def judge_rules(self, rules: tuple[Rule, ...], environment: Mapping[str, Scalar]) -> Rejection | PointError | None:
        """The first of `rules` that is broken at a point; if none is, the first that has no value there."""
        failed: PointError | None = None
        for rule in rules:
            if any(name not in environment for name in rule.expression.names):
                continue
            try:
                shortfall = rule.expression.shortfall(environment)
            except EvaluationError as error:
                failed = failed or PointError(rule.text, f"{error}{seen_at(rule.expression, environment)}")
                continue
            if shortfall > 0:
                return Rejection(
                    rule.text, f"{rule.text} does not hold{seen_at(rule.expression, environment)}", shortfall
                )
        return failed

    def judge_completed(self, values: Mapping[str, Scalar], completed: Completed) -> Rejection | PointError | None:
        """What the completed point breaks: rules that name defaults, the model's own rules, static constraints. A
        constraint that has no value there whatever is measured is an error, as a rule is."""
        is_needed = self.late_rules or self.constraints or self.calculated
        environment = self._late_environment(values, completed) if is_needed else {}
        outcome = self.judge_rules(self.late_rules, environment)
        if outcome is not None:
            return outcome
        violations = broken_rules(completed.model)
        if violations:
            return Rejection(violations[0].rule, violations[0].message, 1.0)
        if self.leaves_for_transformers and (misfit := misfit_of(completed.model)) is not None:
            return Rejection(RULE, misfit, 1.0)
        if not self.constraints and not self.calculated:
            return None
        environment.update(self._static_metrics(completed))
        for constraint in self.calculated:
            failed = constraint.failure(environment)
            if failed is not None:
                remedy = "exclude the point by a rule, or write what holds there: a if condition else b"
                return PointError(constraint.text, f"{failed}{seen_at(constraint.expression, environment)}", remedy)
        for constraint in self.constraints:
            violation = constraint.violation(environment)
            if violation is not None and violation > 0:
                measured = ", ".join(f"{name} is {environment[name]:,}" for name in constraint.metrics)
                return Rejection(constraint.text, f"{constraint.text} is broken: {measured}", violation)
        return None

    def _late_environment(self, values: Mapping[str, Scalar], completed: Completed) -> dict[str, Scalar]:
        """By name what the completed point has; what the document gives but is absent here stays absent."""
        every = flatten({"model": completed.model, "training": completed.training, "inference": completed.inference})
        if self._names_layers:
            every = {**per_layer.spelt_out(completed.model), **every}
        every |= self.variables_of(values)
        return {name: value for name, value in every.items() if name not in self._given or name in values}

    # --- all points -----------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Walked]:
        """Every point of a finite space as (values by name, derived values that could not be had). The two change with
        the next step."""
        return Walker(self.entries, self._defaults).walk()

    def enumerate(self) -> Iterator[dict[str, Scalar]]:
        """Every distinct point as `chosen`, always in the same order. Raises ValueError for a continuous space."""
        for environment, _ in self.walk():
            yield self.chosen_of(environment)

    def sample(self, source: random.Random) -> dict[str, Scalar]:
        """One point at random as `chosen`: parameter by parameter, each by itself."""
        environment, _ = self.draw(source)
        return self.chosen_of(environment)

    def draw(self, source: random.Random) -> Walked:
        """One point at random as `walk` yields it."""
        return draw(self.entries, self._defaults, source)

    def points(self) -> int | None:
        """How many distinct points there are; None if one is continuous or they are more than 10 ** 6."""
        found = self._indexed()
        return None if found is None else found.points

    def at(self, index: int) -> dict[str, Scalar]:
        """The point that `enumerate` yields after `index` others, without a walk. Raises IndexError, and ValueError for
        a space whose points are not counted."""
        found = self._indexed()
        if found is None:
            raise ValueError("a parameter is continuous, or the points are too many")
        return found.at(index)

    def _indexed(self) -> PointIndex | None:
        if self._index is None:
            self._index = (indexed(self.entries, self._defaults),)
        return self._index[0]

    def points_in(self, names: Iterable[str]) -> int | None:
        """How many points differ in `names` alone, or in what those depend on; None as `points`."""
        found = indexed(with_needs(self.entries, names), self._defaults)
        return None if found is None else found.points


def _below(section: str, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {found[1]: value for name, value in values.items() if (found := section_of(name))[0] == section}


def static_metrics(
    model: Mapping[str, Scalar], inference: Mapping[str, Scalar], shapes: Sequence[NamedShape]
) -> dict[str, float]:
    """What is known of a completed point without a device, at each of its shapes."""
    config = config_of(model)
    sections = {shape.name: shape.section(inference) for shape in shapes} or {None: inference}
    found: dict[str, float] = {"parameter_count": config.parameter_count()}
    for name, section in sections.items():
        found[named_at("flops", name)] = config.flops(_measured_shape(section))
        cached = kv_cache_bytes(model, section)
        if cached is not None:
            found[named_at("kv_cache_bytes", name)] = cached
    return found


def _measured_shape(values: Mapping[str, Scalar]) -> Shape:
    length = int(values["sequence_length"])
    return Shape(int(values["batch_size"]), length, int(values.get("source_length", length)))


def _judge_target(
    model: Mapping[str, Scalar], inference: Mapping[str, Scalar], capabilities: Capabilities | None
) -> Rejection | None:
    if capabilities is None:
        return None
    lacking = unsupported(model, capabilities) or lacking_option(inference, capabilities)
    return None if lacking is None else Rejection("target", lacking, 1.0)
