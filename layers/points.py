"""The space of a sweep: its open parameters in the order in which they are suggested, and what makes a point of it.

A point is given by the values chosen for the open parameters that are active there (`chosen`: name -> value). Names are
paths below `model`, or `training.…` and `inference.…`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layers import model as models
from layers import training as trainings
from layers.base import Parameter, ParameterError, Scalar
from layers.constraints import Constraint
from layers.expressions import EvaluationError, Expression, MissingName
from layers.openings import Entry, OpenParameter
from layers.problems import did_you_mean

MAX_POINTS = 10**6
"""Up to here points are counted and enumerated."""


class PointError(ValueError):
    """Values that are no point of the space: `name` is the parameter, `message` says what is wrong with it."""

    def __init__(self, name: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{name}: {message}" + (f" ({remedy})" if remedy else ""))
        self.name = name
        self.message = message
        self.remedy = remedy

    def rejection(self) -> Rejection:
        """The same as the reason why a sampler's suggestion became no trial."""
        return Rejection(self.name, str(self), 1.0)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a point becomes no trial. `rule` is a stable short name, `violation` (> 0) says how far it is broken."""

    rule: str
    message: str
    violation: float


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


def section_of(name: str) -> tuple[str, str]:
    """The section of a name (`model`, `training`, `inference`), and the name below it."""
    head, _, rest = name.partition(".")
    return (head, rest) if head in ("training", "inference") else ("model", name)


def flatten(configuration: Mapping[str, Any]) -> dict[str, Scalar]:
    """The values of a trial's configuration by the names that expressions and constraints use."""
    values: dict[str, Scalar] = dict(configuration["model"])
    for section in ("training", "inference"):
        values.update({f"{section}.{name}": value for name, value in configuration[section].items()})
    return values


class Space:
    """The open, fixed and derived parameters of one sweep with its rules. Immutable, and safe to share between threads."""

    def __init__(
        self,
        *,
        task: str,
        facts: Mapping[str, Any],
        entries: tuple[Entry, ...],
        defaults: Mapping[str, Scalar],
        rules: tuple[Rule, ...],
        constraints: tuple[Constraint, ...],
    ) -> None:
        """`entries` come in an order in which each depends only on earlier ones; `defaults` are what `when` and
        `derived` may name of the declarations without the document giving it; `constraints` are the static ones."""
        self.task = task
        self.facts = dict(facts)
        self.entries = entries
        self.rules = rules
        self.constraints = constraints
        self.open: tuple[OpenParameter, ...] = tuple(entry.opening for entry in entries if entry.opening is not None)
        self._defaults = dict(defaults)
        self._entry = {entry.name: entry for entry in entries}
        self._given = frozenset(self._entry)
        known = self._given | frozenset(defaults)
        self.early_rules = tuple(rule for rule in rules if known.issuperset(rule.expression.names))
        self.late_rules = tuple(rule for rule in rules if rule not in self.early_rules)

    # --- one point ------------------------------------------------------------------------------------------------

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
                place(entry, environment)
        raise KeyError(parameter.name)

    def resolve(self, chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """All values of the point: fixed, chosen and derived; inactive parameters are absent.

        Raises PointError where `chosen` is no point: a name too many or too few, a value outside, a derived value that
        cannot be had.
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
                    raise PointError(entry.name, f"is absent here: {_condition(entry)} is false", "leave it out")
            elif entry.opening is not None:
                environment[entry.name] = _chosen(entry.opening, chosen)
            else:
                error = place(entry, environment)
                if error is not None:
                    raise error
        return self.values_of(environment)

    def values_of(self, environment: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What of `environment` the document gives, in its order."""
        return {entry.name: environment[entry.name] for entry in self.entries if entry.name in environment}

    def chosen_of(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of the open parameters that are active at a point."""
        return {parameter.name: values[parameter.name] for parameter in self.open if parameter.name in values}

    def shown(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of the open and the derived parameters: what a leaderboard shows."""
        searched = [entry.name for entry in self.entries if entry.opening is not None or entry.derived is not None]
        return {name: values[name] for name in searched if name in values}

    def configuration(self, values: Mapping[str, Scalar]) -> dict[str, Any]:
        """What a worker executes: task, model, training and inference, every default filled in, paths flat below each.

        Raises ParameterError where `judge` rejects the point for its values.
        """
        completed = self.complete(values)
        return {
            "task": self.task,
            "model": completed.model,
            "training": completed.training,
            "inference": completed.inference,
        }

    def complete(self, values: Mapping[str, Scalar]) -> Completed:
        """Every default filled in. Raises ParameterError."""
        inference = trainings.complete_inference(_below("inference", values))
        training = self.complete_training(values, inference)
        model = self.complete_model(values, inference, training)
        return Completed(model, training, inference)

    def complete_training(self, values: Mapping[str, Scalar], inference: Mapping[str, Any]) -> dict[str, Scalar]:
        """The section `training`; a probe has none. Raises ParameterError."""
        return {} if self.task == "probe" else trainings.complete_training(_below("training", values), inference)

    def complete_model(
        self, values: Mapping[str, Scalar], inference: Mapping[str, Any], training: Mapping[str, Any]
    ) -> dict[str, Scalar]:
        """The section `model`, for the dataset and the longest sequence of the other sections. Raises ParameterError."""
        lengths = [section["sequence_length"] for section in (inference, training) if "sequence_length" in section]
        return models.complete(self.task, _below("model", values), {**self.facts, "sequence_length": max(lengths)})

    def static_metrics(self, values: Mapping[str, Scalar]) -> dict[str, float]:
        """`parameter_count` and `flops`, which need no device. Raises ParameterError as `configuration`."""
        completed = self.complete(values)
        return {
            "parameter_count": models.parameter_count(completed.model),
            "flops": models.flops(
                completed.model,
                completed.inference["batch_size"],
                completed.inference["sequence_length"],  # pyright: ignore[reportArgumentType]
            ),
        }

    # --- whether it becomes a trial -------------------------------------------------------------------------------

    def judge(self, values: Mapping[str, Scalar], capabilities: Mapping[str, Any] | None = None) -> Rejection | None:
        """Why the point becomes no trial, or None: the user's rules, the declarations' bounds and rules, the static
        constraints, and where they are given the target's `capabilities`, in this order. The first one counts."""
        rejection = self.judge_rules(self.early_rules, {**self._defaults, **values})
        if rejection is not None:
            return rejection
        try:
            completed = self.complete(values)
        except ParameterError as error:
            return Rejection(error.path, str(error), 1.0)
        return self.judge_completed(values, completed) or _judge_target(completed.model, capabilities)

    def judge_rules(self, rules: tuple[Rule, ...], environment: Mapping[str, Scalar]) -> Rejection | None:
        """The first of `rules` that is broken at a point."""
        for rule in rules:
            if any(name not in environment for name in rule.expression.names):
                continue
            try:
                shortfall = rule.expression.shortfall(environment)
            except EvaluationError as error:
                return Rejection(rule.text, f"{rule.text}: {error}{_at(rule.expression, environment)}", 1.0)
            if shortfall > 0:
                return Rejection(rule.text, f"{rule.text} does not hold{_at(rule.expression, environment)}", shortfall)
        return None

    def judge_completed(self, values: Mapping[str, Scalar], completed: Completed) -> Rejection | None:
        """What the completed point breaks: rules that name defaults, the model's own rules, static constraints."""
        environment = self._late_environment(values, completed) if self.late_rules or self.constraints else {}
        rejection = self.judge_rules(self.late_rules, environment)
        if rejection is not None:
            return rejection
        violations = models.broken_rules(completed.model)
        if violations:
            return Rejection(violations[0].rule, violations[0].message, 1.0)
        if not self.constraints:
            return None
        inference: Mapping[str, Any] = completed.inference
        environment["parameter_count"] = models.parameter_count(completed.model)
        environment["flops"] = models.flops(completed.model, inference["batch_size"], inference["sequence_length"])
        for constraint in self.constraints:
            violation = constraint.violation(environment)
            if violation is not None and violation > 0:
                had = ", ".join(f"{name} is {environment[name]:,}" for name in constraint.metrics)
                return Rejection(constraint.text, f"{constraint.text} is broken: {had}", violation)
        return None

    def _late_environment(self, values: Mapping[str, Scalar], completed: Completed) -> dict[str, Scalar]:
        """By name what the completed point has; what the document gives but is absent here stays absent."""
        every = flatten({"model": completed.model, "training": completed.training, "inference": completed.inference})
        return {name: value for name, value in every.items() if name not in self._given or name in values}

    # --- all points -----------------------------------------------------------------------------------------------

    def walk(
        self, entries: tuple[Entry, ...] | None = None
    ) -> Iterator[tuple[dict[str, Scalar], dict[str, PointError]]]:
        """Every point of a finite space as (values by name, derived values that could not be had). The two are the
        walker's own and change with the next step. `entries` may be some of the space's that need no others."""
        steps = self.entries if entries is None else entries
        environment = dict(self._defaults)
        errors: dict[str, PointError] = {}
        # One iterator an entry that has been entered: the choices it still has.
        stack: list[Iterator[Scalar | None]] = []
        while True:
            if len(stack) == len(steps):
                yield environment, errors
            else:
                stack.append(_options(steps[len(stack)], environment))
                if self._advance(steps, stack, environment, errors):
                    continue
            while stack:
                if self._advance(steps, stack, environment, errors):
                    break
                stack.pop()
            if not stack:
                return

    def _advance(
        self,
        steps: tuple[Entry, ...],
        stack: list[Iterator[Scalar | None]],
        environment: dict[str, Scalar],
        errors: dict[str, PointError],
    ) -> bool:
        """Give the newest entry on the stack its next option; False where it has none left."""
        entry = steps[len(stack) - 1]
        environment.pop(entry.name, None)
        errors.pop(entry.name, None)
        if entry.name in self._defaults:
            environment[entry.name] = self._defaults[entry.name]
        for option in stack[-1]:
            if entry.derived is not None and option is not None:
                error = place(entry, environment)
                if error is not None:
                    errors[entry.name] = error
            elif option is not None:
                environment[entry.name] = option
            return True
        return False

    def enumerate(self) -> Iterator[dict[str, Scalar]]:
        """Every distinct point as `chosen`, always in the same order. Raises ValueError for a continuous space."""
        for environment, _ in self.walk():
            yield self.chosen_of(environment)

    def sample(self, source: random.Random) -> dict[str, Scalar]:
        """One point at random as `chosen`: parameter by parameter, as a sampler draws it."""
        environment, _ = self.draw(source)
        return self.chosen_of(environment)

    def draw(self, source: random.Random) -> tuple[dict[str, Scalar], dict[str, PointError]]:
        """One point at random as `walk` yields it."""
        environment = dict(self._defaults)
        errors: dict[str, PointError] = {}
        for entry in self.entries:
            if not is_active(entry, environment):
                continue
            if entry.opening is not None:
                environment[entry.name] = entry.opening.draw(source)
            else:
                error = place(entry, environment)
                if error is not None:
                    errors[entry.name] = error
        return environment, errors

    def points(self) -> int | None:
        """How many distinct points there are; None where one is continuous or they are more than 10 ** 6."""
        return count_points(self)


def is_active(entry: Entry, environment: Mapping[str, Scalar]) -> bool:
    """Whether an entry is present. A condition that names an absent parameter is false."""
    if entry.when is None:
        return True
    try:
        return entry.when.holds(environment)
    except MissingName:
        return False
    except EvaluationError as error:
        raise PointError(entry.name, f"when {entry.when.text}: {error}{_at(entry.when, environment)}") from None


def place(entry: Entry, environment: dict[str, Scalar]) -> PointError | None:
    """Put a fixed or derived entry's value into `environment`; or return why it has none."""
    if entry.derived is None:
        assert entry.value is not None
        environment[entry.name] = entry.value
        return None
    text, at = entry.derived.text, _at(entry.derived, environment)
    try:
        value = entry.derived.evaluate(environment)
    except MissingName as error:
        remedy = f"use it only where it is present, or give {entry.name} a when"
        return PointError(entry.name, f"{text} needs {error.name}, which is absent{at}", remedy)
    except EvaluationError as error:
        return PointError(entry.name, f"{text}: {error}{at}")
    try:
        environment[entry.name] = _as_declared(entry.declared, value)
    except ValueError as error:
        return PointError(entry.name, f"{text} gives {value!r}{at}: {error}", _remedy(entry.declared, value))
    return None


def _as_declared(declared: Parameter, value: Scalar) -> Scalar:
    """A derived value in its parameter's type; bounds are `judge`'s matter. Raises ValueError."""
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
        return float(value)
    if value != int(value):
        raise ValueError("an integer is needed")
    return int(value)


def _remedy(declared: Parameter, value: Scalar) -> str:
    fraction = declared.type == "integer" and isinstance(value, float)
    return "round it: round_up(..., 64), floor(...), or // for a whole division" if fraction else ""


def _options(entry: Entry, environment: Mapping[str, Scalar]) -> Iterator[Scalar | None]:
    """What an entry can be where `environment` holds all before it: its choices, its value, or None for absent."""
    if not is_active(entry, environment):
        return iter((None,))
    if entry.opening is not None:
        return entry.opening.choices()
    return iter((True if entry.derived is not None else entry.value,))


def _chosen(opening: OpenParameter, chosen: Mapping[str, Scalar]) -> Scalar:
    if opening.name not in chosen:
        raise PointError(opening.name, "has no value", f"give one: {opening.allowed()}")
    try:
        return opening.canonical(chosen[opening.name])
    except ValueError as error:
        raise PointError(opening.name, str(error), opening.allowed()) from None


def _condition(entry: Entry) -> str:
    return entry.when.text if entry.when is not None else "its condition"


def _at(expression: Expression, environment: Mapping[str, Scalar]) -> str:
    """The values that an expression saw, as an example."""
    seen = [f"{name} = {environment[name]!r}" for name in expression.names if name in environment]
    return f" at {', '.join(seen)}" if seen else ""


def _below(section: str, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    found = ((section_of(name), value) for name, value in values.items())
    return {name: value for (head, name), value in found if head == section}


def _judge_target(model: Mapping[str, Scalar], capabilities: Mapping[str, Any] | None) -> Rejection | None:
    if capabilities is None:
        return None
    lacking = models.unsupported(model, capabilities)
    return None if lacking is None else Rejection("target", lacking, 1.0)


def count_points(space: Space) -> int | None:
    """How many distinct points a space has; None where one is continuous or they are more than MAX_POINTS.

    Only what conditions depend on is walked: the other parameters multiply.
    """
    if any(parameter.size is None for parameter in space.open):
        return None
    controlling = _controlling(space.entries)
    steps = tuple(entry for entry in space.entries if entry.name in controlling)
    leaves = [entry for entry in space.entries if entry.opening is not None and entry.name not in controlling]
    total = 0
    for environment, _ in space.walk(steps):
        product = 1
        for leaf in leaves:
            if is_active(leaf, environment):
                assert leaf.opening is not None
                product *= leaf.opening.size or 1
        total += product
        if total > MAX_POINTS:
            return None
    return total


def _controlling(entries: tuple[Entry, ...]) -> set[str]:
    """The entries that some condition depends on, directly or not."""
    needed = {name for entry in entries if entry.when is not None for name in entry.when.names}
    for entry in reversed(entries):
        if entry.name in needed:
            for expression in (entry.when, entry.derived):
                needed.update(expression.names if expression is not None else ())
    return needed
