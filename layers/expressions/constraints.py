"""Constraints of a sweep: comparisons of metrics, judged as soon as every metric that they name is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from layers.expressions import parser
from layers.expressions.compiler import (
    Evaluate,
    EvaluationError,
    Expression,
    ExpressionError,
    MissingNameError,
    compile_tree,
    number,
    parse,
)
from layers.metrics import METRICS, STAGES, Stage, is_metric, metric
from layers.parameter import Scalar
from layers.problems import did_you_mean
from layers.tolerance import near

GUESSES = (0.37, 1.61, 211.3)
"""In place of metrics that are not measured yet: a constraint that has no value for any of them never has one."""

BOUNDS = ("<=", "<", ">=", ">")

Bounds = tuple[float, float]
"""What a metric lies between: lower and upper bound of its interval, in its unit."""

Verdict = Literal["kept", "broken", "undecided"]
"""`undecided`: the limit lies within what is known of the metrics."""

MOST_CORNERS = 6
"""Metrics of one constraint whose intervals are combined each with each."""


@dataclass(frozen=True, slots=True)
class MetricLimit:
    """A constraint on one metric alone: its violation is `slope * (metric - value)`."""

    metric: str
    value: float
    """The limit, in the metric's unit."""
    slope: float
    """Positive if the metric has to stay below the limit, negative if above it."""

    @property
    def is_in_unit(self) -> bool:
        """Whether a violation of the constraint is in the metric's unit, too."""
        return abs(self.slope) == 1.0


@dataclass(frozen=True, slots=True)
class Constraint:
    """One comparison, such as `latency_ms_p99 <= 2.0`. `stage`, by the latest metric in it: when it can be judged."""

    text: str
    expression: Expression = field(compare=False, repr=False)
    stage: Stage = field(compare=False)
    _strict: bool = field(compare=False, repr=False)
    _smaller: Evaluate = field(compare=False, repr=False)
    _larger: Evaluate = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[Callable[[str], Constraint], tuple[str]]:
        # What it was compiled to stays in its process; the text says the same to another.
        return parse_constraint, (self.text,)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics in it."""
        return tuple(name for name in self.expression.names if is_metric(name))

    @property
    def may_fail(self) -> bool:
        """Whether something is calculated in it, which may have no value somewhere."""
        return any(_calculates(operand) for operand in parser.children(self.expression.tree))

    def failure(self, values: Mapping[str, Scalar]) -> str | None:
        """Why it has no value at a point whatever is measured there, in words; None if it may have one.

        `values` as for `violation`, as far as they are known before the trial.
        """
        failed: str | None = None
        for guess in GUESSES:
            known = {**dict.fromkeys(self.metrics, guess), **values}
            try:
                number(self._smaller(known))
                number(self._larger(known))
            except MissingNameError:
                return None
            except EvaluationError as error:
                failed = failed or str(error)
            else:
                return None
        return failed

    def violation(self, values: Mapping[str, Scalar]) -> float | None:
        """How far it is broken, in its own unit (<= 0: kept), or None if a name that it needs has no value.

        `values` holds metrics and parameters by name (`layers.space.document.flatten` makes them of a configuration).
        What cannot be calculated (a division by zero) or is not a number breaks it.
        """
        if any(name not in values for name in self.expression.names):
            return None
        try:
            smaller, larger = float(number(self._smaller(values))), float(number(self._larger(values)))
        except EvaluationError:
            return 1e308
        excess = smaller - larger
        if math.isnan(excess):
            return 1e308
        if near(smaller, larger):
            excess = 0.0
        if self._strict and excess == 0:
            excess = math.ulp(max(abs(smaller), 1e-300))
        return max(min(excess, 1e308), -1e308)

    def metric_limit(self) -> MetricLimit | None:
        """The constraint as a limit on one metric; None if it names more, or is not linear in it."""
        names = self.expression.names
        if len(names) != 1 or not is_metric(names[0]):
            return None
        found = [self.violation({names[0]: value}) for value in (0.0, 1.0, 2.0)]
        at_0, at_1, at_2 = (math.nan if value is None else value for value in found)
        slope = at_1 - at_0
        if math.isclose(abs(slope), 1.0, rel_tol=1e-6):
            slope = math.copysign(1.0, slope)
        if not slope or not math.isclose(at_2 - at_1, slope, rel_tol=1e-6):
            return None
        return MetricLimit(names[0], 0.0 - at_0 / slope, slope)

    def verdict(self, values: Mapping[str, Scalar], intervals: Mapping[str, Bounds]) -> Verdict | None:
        """Whether it is kept wherever its metrics lie within their intervals; None as of `violation`.

        `intervals`: of the metrics that are uncertain; the others are exactly as `values` say. It is looked at the ends
        of the intervals, which is all if it rises or falls with each metric.
        """
        uncertain = [name for name in self.metrics if name in intervals]
        ends = [intervals[name] for name in uncertain]
        corners = itertools.product(*ends) if len(ends) <= MOST_CORNERS else zip(*ends, strict=True)
        found = [self.violation({**values, **dict(zip(uncertain, corner, strict=True))}) for corner in corners]
        broken = {violation > 0 for violation in found if violation is not None}
        if not broken or None in found:
            return None
        if len(broken) > 1:
            return "undecided"
        return "broken" if True in broken else "kept"


def _calculates(node: parser.Node) -> bool:
    return isinstance(node, parser.Arithmetic | parser.Call) or any(map(_calculates, parser.children(node)))


def read_constraint(text: str) -> Expression:
    """The expression of a constraint, whatever it compares. Raises ExpressionError."""
    try:
        return parse(text, kind="constraint")
    except ExpressionError as error:
        if error.remedy != parser.REMEDIES["="]:
            raise
        # What == compares is no limit: that would be the next refusal.
        raise ExpressionError(error.message, "write <= or >=: a constraint is a limit on a metric") from None


def parse_constraint(text: str) -> Constraint:
    """Parse one constraint, names as they are written. Raises ExpressionError."""
    expression = read_constraint(text)
    tree = expression.tree
    if not isinstance(tree, parser.Comparison) or len(tree.operators) != 1 or tree.operators[0] not in BOUNDS:
        raise ExpressionError(
            "a constraint is one comparison with <=, <, >= or >",
            "write each bound by itself, for example latency_ms_p99 <= 2.0; conditions on parameters belong in rules",
        )
    left, right = (compile_tree(operand) for operand in tree.operands)
    operator = tree.operators[0]
    smaller, larger = (left, right) if operator in ("<=", "<") else (right, left)
    stages = [STAGES.index(metric(name).stage) for name in expression.names if is_metric(name)]
    if not stages:
        remedy = "conditions on parameters alone belong in rules"
        unknown = next((name for name in expression.names if "." not in name), None)
        near = did_you_mean(unknown, METRICS) if unknown else ""
        raise ExpressionError("it names no metric", near if near.startswith("did") else remedy)
    return Constraint(text, expression, STAGES[max(stages)], operator in ("<", ">"), smaller, larger)
