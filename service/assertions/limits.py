"""Limits as they are asked for: a constraint on metrics, which may name `baseline`, what its metric was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layers.expressions.compiler import ExpressionError
from layers.expressions.constraints import Constraint, parse_constraint
from layers.expressions.metric_names import MetricNameError, MetricNames
from layers.metrics import Stage, metric
from service.errors import Problem, UnprocessableError

BASELINE = "baseline"

REFUSED = frozenset({"test_loss", "train_seconds", "device_seconds"})
"""Metrics that a trial which is measured anew does not have, or has of other work: it hardly trains."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`latency_ms_p50 <= 1.02 * baseline`: kept by a build or not, and by how much."""

    text: str
    constraint: Constraint
    metrics: Mapping[str, str]
    """What it names -> the metric's name in full."""

    @property
    def has_baseline(self) -> bool:
        return BASELINE in self.constraint.expression.names

    @property
    def stage(self) -> Stage:
        return self.constraint.stage

    @property
    def only_metric(self) -> str:
        """The full name of the metric of a limit with a baseline, or of one with a single metric."""
        return next(iter(self.metrics.values()))

    def excess(self, measured: Mapping[str, float], baseline: float | None = None) -> float:
        """By how much a build breaks it, in the unit of what is compared; 0 and below: it is kept.

        `measured` has the metrics by their full names.
        """
        values = {name: measured[full] for name, full in self.metrics.items()}
        if baseline is not None:
            values[BASELINE] = baseline
        found = self.constraint.violation(values)
        assert found is not None, "the names of a limit are its metrics and the baseline"
        return found


def read(texts: Sequence[str], names: MetricNames) -> list[Limit]:
    """The limits that these texts are, of a sweep with these metrics. Raises UnprocessableError with every problem."""
    found: list[Limit] = []
    problems: list[Problem] = []
    for index, text in enumerate(texts):
        try:
            found.append(_read_one(text, names))
        except (ExpressionError, MetricNameError) as error:
            problems.append(Problem(f"/limits/{index}", f"{text[:200]!r}: {error.message}", error.remedy))
    if problems:
        raise UnprocessableError("; ".join(problem.detail for problem in problems), problems=problems)
    return found


def metrics_of(limits: Sequence[Limit]) -> list[str]:
    """The full names of the metrics in these limits, each once."""
    return list(dict.fromkeys(full for limit in limits for full in limit.metrics.values()))


def _read_one(text: str, names: MetricNames) -> Limit:
    constraint = parse_constraint(text)
    metrics = {name: names.resolve(name) for name in constraint.metrics}
    others = [name for name in constraint.expression.names if name not in metrics and name != BASELINE]
    if others:
        raise ExpressionError(
            f"{others[0]} is neither a metric nor {BASELINE}", "a limit compares metrics, numbers and baseline"
        )
    if len(metrics) > 1 and BASELINE in constraint.expression.names:
        raise ExpressionError(
            f"{BASELINE} could be that of {' or '.join(metrics)}", "write a limit for each metric that has a baseline"
        )
    for full in metrics.values():
        base = full.partition("@")[0]
        if base in REFUSED or metric(base).source == "replicates":
            raise MetricNameError(
                f"{full} is not of a trial that is measured anew", "take a latency, a size, or validation_loss"
            )
    return Limit(text, constraint, metrics)
