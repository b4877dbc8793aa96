"""Whether a finished trial keeps its sweep's constraints, and whether it reports what the sweep asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from layers.configuration import Configuration, flatten
from layers.expressions.constraints import Constraint, parse_constraint
from layers.metrics import Stage
from layers.parameter import Scalar
from layers.space.document_fields import Objective
from service.errors import Problem, UnprocessableError

LOSS = "validation_loss"

# An engine of trained weights is measured again.
_TAKEN_AT: Mapping[Stage, str] = {"hardware": ", at the final measurement", "quality": ", at evaluation"}


def constraint_violations(
    constraints: Sequence[str], configuration: Configuration, metrics: Mapping[str, float]
) -> dict[str, float]:
    """Return constraint -> how far it is broken (<= 0: kept), by the metrics and the configuration's parameters.

    A constraint that names something absent is left out: a parameter whose condition is false, or a metric of a phase
    that was not reached.
    """
    values = named_values(configuration, metrics)
    violations = {text: _constraint(text).violation(values) for text in constraints}
    return {text: violation for text, violation in violations.items() if violation is not None}


def violations_by_metrics(constraints: Sequence[str], metrics: Mapping[str, float]) -> dict[str, float]:
    """As `constraint_violations`, of the constraints that name metrics alone."""
    return constraint_violations(constraints, {"task": "", "model": {}, "training": {}, "inference": {}}, metrics)


def describe_violations(violations: Mapping[str, float], metrics: Mapping[str, float]) -> str | None:
    """Which constraints are broken, by how much, and what was measured; None where all are kept."""
    said = [_broken(text, by, metrics) for text, by in violations.items() if by > 0]
    return "; ".join(said) or None


def describe_final_violations(violations: Mapping[str, float], metrics: Mapping[str, float]) -> str | None:
    """`describe_violations` of a complete trial, with the phase in which the figures were taken."""
    said = [
        _broken(text, by, metrics) + _TAKEN_AT.get(_constraint(text).stage, "")
        for text, by in violations.items()
        if by > 0
    ]
    return "; ".join(said) or None


def describe_broken_hardware(
    constraints: Sequence[str], configuration: Configuration, metrics: Mapping[str, float]
) -> str | None:
    """Which constraints that can be judged before a training are broken, as `describe_violations` says it."""
    judged = [text for text in constraints if _constraint(text).stage != "quality"]
    return describe_violations(constraint_violations(judged, configuration, metrics), metrics)


def check_required_metrics(
    objectives: Sequence[Objective], constraints: Sequence[str], metrics: Mapping[str, float]
) -> None:
    """Raise Unprocessable where a complete trial lacks a metric that an objective or a constraint needs."""
    needed = {objective["metric"] for objective in objectives}
    for text in constraints:
        needed |= set(_constraint(text).metrics)
    missing = sorted(needed - metrics.keys())
    if missing:
        remedy = "a complete trial has every metric that the sweep's objectives and constraints name"
        problems = [Problem(f"/metrics/{name}", "is missing", remedy) for name in missing]
        raise UnprocessableError(f"metrics that the sweep needs are missing: {', '.join(missing)}", problems=problems)


def check_learnt_metrics(metrics: Mapping[str, float]) -> None:
    """Raise Unprocessable where a complete replicate does not say what its training came to."""
    if LOSS not in metrics:
        problem = Problem(f"/metrics/{LOSS}", "is missing", "a complete replicate says its loss")
        raise UnprocessableError(f"metrics that the sweep needs are missing: {LOSS}", problems=[problem])


def named_values(configuration: Configuration, metrics: Mapping[str, float]) -> dict[str, Scalar]:
    """Parameters and metrics by the names that constraints use: bare below `model`, else with their section."""
    return {**flatten(configuration), **metrics}


def _broken(text: str, by: float, metrics: Mapping[str, float]) -> str:
    named = _constraint(text).metrics
    measured = ", ".join(f"{name} is {metrics[name]:.6g}" for name in named if name in metrics)
    return f"{text} is broken by {by:.4g}" + (f" ({measured})" if measured else "")


@lru_cache(maxsize=1024)
def _constraint(text: str) -> Constraint:
    return parse_constraint(text)
