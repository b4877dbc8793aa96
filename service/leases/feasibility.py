"""Whether a finished trial keeps its sweep's constraints, and whether it reports what the sweep asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from layers.configuration import Configuration, flatten
from layers.expressions.constraints import Constraint, parse_constraint
from layers.metrics import Stage
from layers.parameter import Scalar
from layers.space.document_fields import Objective
from service.common.noise import StoredFigure
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


@dataclass(frozen=True, slots=True)
class Judgement:
    """A trial under a sweep's constraints."""

    violations: dict[str, float]
    """Constraint -> how far it is broken by the figures (<= 0: kept)."""
    undecided: list[str]
    """Those of them whose limit lies within what is known of their metrics."""

    @property
    def decided(self) -> dict[str, float]:
        """The violations of those that are kept or broken, whatever the noise."""
        return {text: by for text, by in self.violations.items() if text not in self.undecided}

    @property
    def taught(self) -> dict[str, float]:
        """The violations as a sampler is told them: what cannot be judged is not taught as broken."""
        return {text: min(by, 0.0) if text in self.undecided else by for text, by in self.violations.items()}

    @property
    def feasible(self) -> bool | None:
        """Of a complete trial: whether all are kept; None if it cannot be judged."""
        if any(by > 0 for by in self.decided.values()):
            return False
        return None if self.undecided else True


def judge(
    constraints: Sequence[str],
    configuration: Configuration,
    metrics: Mapping[str, float],
    figures: Mapping[str, StoredFigure],
) -> Judgement:
    """Hold a trial against constraints. `figures`: how certain its metrics are; the others are as they say.

    A metric that is known well enough is judged by its value.
    """
    violations = constraint_violations(constraints, configuration, metrics)
    intervals = {name: (each["low"], each["high"]) for name, each in figures.items() if not each["known"]}
    if not intervals:
        return Judgement(violations, [])
    values = named_values(configuration, metrics)
    undecided = [text for text in violations if _constraint(text).verdict(values, intervals) == "undecided"]
    return Judgement(violations, undecided)


def describe_judgement(
    judgement: Judgement, metrics: Mapping[str, float], figures: Mapping[str, StoredFigure]
) -> str | None:
    """What a complete trial breaks, and what cannot be judged; None if all is kept."""
    broken = describe_final_violations(judgement.decided, metrics)
    texts = [_undecided(text, metrics, figures) for text in judgement.undecided]
    return "; ".join([*([broken] if broken else []), *texts]) or None


def violations_by_metrics(constraints: Sequence[str], metrics: Mapping[str, float]) -> dict[str, float]:
    """As `constraint_violations`, of the constraints that name metrics alone."""
    return constraint_violations(constraints, {"task": "", "model": {}, "training": {}, "inference": {}}, metrics)


def describe_violations(violations: Mapping[str, float], metrics: Mapping[str, float]) -> str | None:
    """Which constraints are broken, by how much, and what was measured; None if all are kept."""
    texts = [_broken(text, by, metrics) for text, by in violations.items() if by > 0]
    return "; ".join(texts) or None


def describe_final_violations(violations: Mapping[str, float], metrics: Mapping[str, float]) -> str | None:
    """`describe_violations` of a complete trial, with the phase in which the figures were taken."""
    texts = [
        _broken(text, by, metrics) + _TAKEN_AT.get(_constraint(text).stage, "")
        for text, by in violations.items()
        if by > 0
    ]
    return "; ".join(texts) or None


def describe_broken_hardware(
    constraints: Sequence[str],
    configuration: Configuration,
    metrics: Mapping[str, float],
    figures: Mapping[str, StoredFigure],
) -> str | None:
    """Which constraints that can be judged before a training are broken, as `describe_violations` says it."""
    judged = [text for text in constraints if _constraint(text).stage != "quality"]
    return describe_violations(judge(judged, configuration, metrics, figures).decided, metrics)


def check_required_metrics(
    objectives: Sequence[Objective], constraints: Sequence[str], metrics: Mapping[str, float]
) -> None:
    """Raise UnprocessableError if a complete trial lacks a metric that an objective or a constraint needs."""
    needed = {objective["metric"] for objective in objectives}
    for text in constraints:
        needed |= set(_constraint(text).metrics)
    missing = sorted(needed - metrics.keys())
    if missing:
        remedy = "a complete trial has every metric that the sweep's objectives and constraints name"
        problems = [Problem(f"/metrics/{name}", "is missing", remedy) for name in missing]
        raise UnprocessableError(f"metrics that the sweep needs are missing: {', '.join(missing)}", problems=problems)


def check_learnt_metrics(metrics: Mapping[str, float]) -> None:
    """Raise UnprocessableError if a complete replicate does not say what its training came to."""
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


def _undecided(text: str, metrics: Mapping[str, float], figures: Mapping[str, StoredFigure]) -> str:
    """`latency_ms_p99 <= 2 cannot be judged here: latency_ms_p99 is 2.05, between 1.7 and 2.6 (95 %, 4 processes)`."""
    timed = [(name, figures[name]) for name in _constraint(text).metrics if name in figures]
    measured = ", ".join(
        f"{name} is {metrics[name]:.4g}, between {each['low']:.4g} and {each['high']:.4g} "
        f"(95 %, {each['processes']} {'process' if each['processes'] == 1 else 'processes'})"
        for name, each in timed
        if name in metrics
    )
    return f"{text} cannot be judged here: {measured}"


@lru_cache(maxsize=1024)
def _constraint(text: str) -> Constraint:
    return parse_constraint(text)
