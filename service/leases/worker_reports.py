"""What a worker may say of its attempt: figures that can be, phases in their order, lists that end, reasons.

What `layers.metrics` declares of each metric is checked here, and nothing else decides it. A worker of this project
reaches none of the bounds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from layers.expressions.metric_names import MetricNameError, MetricNames
from layers.metrics import LARGEST, METRICS, is_metric, split_name
from layers.metrics import metric as declaration_of
from layers.problems import below
from layersweep.json_values import JsonObject
from service.common.formatting import bound
from service.common.noise import StoredFigure
from service.common.states import TrialState
from service.errors import Problem, UnprocessableError
from service.leases import phases
from service.leases import schemas as lease_schemas

MOST_TRIES = 8
"""How often an attempt may begin with the first phase. A worker of this project tries twice."""

MOST_MEASUREMENTS = 128
"""More than are made at as many shapes as a sweep may name."""

MEASUREMENT_NAME_CHARACTERS = 64
PROGRESS_CHARACTERS = 4096
"""Of a report's progress, as JSON: it is kept with every event."""

_SAME = 1e-9
"""Figures that are written as integers by one and as floats by another differ by less."""


def checked_metrics(
    metrics: Mapping[str, float], known: Mapping[str, float], names: MetricNames, *, confirms: bool
) -> dict[str, float]:
    """The metrics under their full names.

    Raises UnprocessableError if one has no such name, cannot have that value, or is not the worker's to say. `known`
    are the service's own figures of the trial: a worker may repeat them. `confirms`: the attempt is one of a
    confirmation.
    """
    wrong = {
        name: problem
        for name, value in metrics.items()
        if (problem := _problem(name, value, known, names, confirms)) is not None
    }
    if wrong:
        are_unknown = all(problem.detail == _UNKNOWN for problem in wrong.values())
        what = "unknown metrics" if are_unknown else "metrics that cannot be"
        raise UnprocessableError(f"{what}: {', '.join(sorted(wrong))}", problems=list(wrong.values()))
    return {names.resolve(name): value for name, value in metrics.items()}


def checked_noise(
    noise: Mapping[str, lease_schemas.FigureNoise], metrics: Mapping[str, float], names: MetricNames
) -> dict[str, StoredFigure]:
    """How certain metrics are, under their full names. Raises UnprocessableError for what says nothing of a metric."""
    problems: list[Problem] = []
    for name, each in noise.items():
        if name not in metrics:
            problems.append(Problem(below("/noise", name), "is of no metric that is said", f"say the metric {name}"))
        elif each.low > each.high:
            detail = f"is from {each.low:g} to {each.high:g}"
            problems.append(Problem(below("/noise", name), detail, "low is at most high"))
    if problems:
        raise UnprocessableError("noise that cannot be", problems=problems)
    # A figure lies in its interval, however either was rounded.
    return {
        names.resolve(name): {
            "low": min(each.low, metrics[name]),
            "high": max(each.high, metrics[name]),
            "processes": each.processes,
            "spread": each.spread,
            "known": each.known,
        }
        for name, each in noise.items()
    }


_UNKNOWN = "is not a metric"


def _problem(name: str, value: float, known: Mapping[str, float], names: MetricNames, confirms: bool) -> Problem | None:
    pointer = below("/metrics", name)
    if split_name(name)[0] not in METRICS:
        return Problem(pointer, _UNKNOWN, f"one of: {', '.join(METRICS)}")
    try:
        name = names.resolve(name)
    except MetricNameError as error:
        return Problem(pointer, error.message, error.remedy)
    declared = declaration_of(name)
    if not declared.possible(value):
        return Problem(pointer, f"is {value:g}", f"between {bound(declared.low)} and {bound(declared.high)}")
    if declared.source == "service" and not math.isclose(value, known.get(name, value), rel_tol=_SAME):
        return Problem(pointer, f"is {value:g}; the service has {known[name]:g}", "leave it out: the service says it")
    if declared.source == "replicates":
        return Problem(pointer, "is of several trainings", "leave it out: the service says it")
    if declared.source == "confirmation" and not confirms:
        return Problem(pointer, "is of an attempt of a confirmation", "leave it out: no sweep sees the test split")
    return None


def own_figures(known: Mapping[str, float]) -> dict[str, float]:
    """Those of a trial's metrics that the service says, whatever a worker repeats."""
    return {
        name: value for name, value in known.items() if is_metric(name) and declaration_of(name).source == "service"
    }


def check_measurements(measurements: Mapping[str, JsonObject]) -> None:
    """Raise UnprocessableError if there are too many, or one has no name."""
    if len(measurements) > MOST_MEASUREMENTS:
        problem = Problem("/measurements", f"has {len(measurements)} entries", f"at most {MOST_MEASUREMENTS}")
        raise UnprocessableError(f"an attempt has at most {MOST_MEASUREMENTS} measurements", problems=[problem])
    remedy = f"a name of 1 to {MEASUREMENT_NAME_CHARACTERS} characters"
    for name in measurements:
        if not 1 <= len(name) <= MEASUREMENT_NAME_CHARACTERS:
            problem = Problem(below("/measurements", name), "is not a name of a measurement", remedy)
            raise UnprocessableError(f"a measurement has {remedy}", problems=[problem])


def check_reason(outcome: str, reason: str | None) -> None:
    """Raise UnprocessableError if an attempt that is not complete does not say why."""
    if outcome != TrialState.COMPLETE and not (reason or "").strip():
        remedy = "say what broke: a constraint by how much, an error's message"
        problem = Problem("/reason", f"is missing, and the outcome is {outcome}", remedy)
        raise UnprocessableError(f"an attempt that ends {outcome} says why", problems=[problem])


def check_phase(entered: Sequence[str], phase: lease_schemas.Phase) -> None:
    """Raise UnprocessableError if a phase follows those before it in neither order, unless the attempt begins anew.

    A worker whose child has crashed tries once more within its attempt: from the first phase on.
    """
    if phase == phases.PHASES[0] and entered and entered[-1] != phase:
        if entered.count(phase) >= MOST_TRIES:
            problem = Problem("/phase", f"is {phase} after {MOST_TRIES} tries", "finish, or release it")
            raise UnprocessableError(f"an attempt begins anew at most {MOST_TRIES - 1} times", problems=[problem])
    elif not phases.follows(entered, phase):
        orders = f"{', '.join(phases.HARDWARE_FIRST)}; or {', '.join(phases.TRAINING_FIRST)}"
        problem = Problem("/phase", f"is {phase} after {entered[-1]}", f"the order is {orders}")
        raise UnprocessableError(
            f"the attempt has reached {entered[-1]}: {phase} does not follow it", problems=[problem]
        )


def check_progress(progress: JsonObject | None) -> None:
    """Raise UnprocessableError if a report's progress is more than a few figures."""
    characters = 0 if progress is None else len(json.dumps(progress))
    if characters > PROGRESS_CHARACTERS:
        detail = f"has {characters:,} characters of JSON"
        problem = Problem("/progress", detail, f"at most {PROGRESS_CHARACTERS:,}: curves go as losses, text as log")
        raise UnprocessableError("a report's progress is a few figures", problems=[problem])


def check_losses(losses: list[lease_schemas.Losses]) -> None:
    """Raise UnprocessableError if a point of a curve cannot be."""
    for position, point in enumerate(losses):
        for name, value in point.model_dump(exclude={"step"}, exclude_none=True).items():
            # Cross-entropies, rates, counts and times alike.
            if not METRICS["validation_loss"].possible(value):
                problem = Problem(f"/losses/{position}/{name}", f"is {value:g}", f"between 0 and {bound(LARGEST)}")
                raise UnprocessableError("a point of the curve is out of range", problems=[problem])
