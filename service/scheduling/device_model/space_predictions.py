"""What a sweep's points will take of a device, and how many of them a limit leaves."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from layers.expressions.constraints import Constraint
from layers.expressions.summary_metrics import deciding_metrics, latency_metrics
from layers.metrics import METRICS, MODELLED, STATIC, metric, named_at, split_name
from layers.parameter import ParameterError, Scalar
from layers.space.document import PointError, Space, SweepDocument
from service.leases.feasibility import named_values
from service.scheduling.device_model.device_model import DeviceModel, in_one_thread
from service.scheduling.device_model.features import Described, describe
from service.scheduling.device_model.measured import (
    FEWEST_ROWS,
    MeasuredTrial,
    at_shapes,
    measured_trials,
    newest_target,
    with_metric,
)
from service.sweeps.schemas import HardwarePrediction, PredictedLimit, UnpredictedMetric

POINTS = 200
TRIES = 2000
PREDICTED = (*MODELLED, *(name for name, each in METRICS.items() if each.of_generation and each.stage == "hardware"))
"""What a prompt and its answer take is predicted, but no point is left out for it: see `MODELLED`."""

Point = tuple[Mapping[str | None, Described], Mapping[str, Scalar]]
"""A point as a model sees it at each of its shapes, and its parameters by the names of constraints."""


@dataclass(frozen=True, slots=True)
class MeasuredTarget:
    """The target on which a sweep's task was measured last, and what was."""

    key: str
    trials: Sequence[MeasuredTrial]


def read_measured(session: Session, document: SweepDocument, *, project: str) -> MeasuredTarget | None:
    """What predictions for the sweep rest on; None if nothing of its task was measured."""
    key = newest_target(session, project=project, task=document.task, runtime=document.target_runtime)
    if key is None:
        return None
    return MeasuredTarget(key, measured_trials(session, key, project=project, task=document.task))


@in_one_thread
def predict_space(document: SweepDocument, measured: MeasuredTarget | None) -> list[HardwarePrediction]:
    """The latencies of its mode, and what else of the hardware the sweep decides by, over its space; empty if too
    little of the task was measured to say anything. It takes a second or two."""
    if measured is None or len(measured.trials) < FEWEST_ROWS:
        return []
    target, model = measured.key, DeviceModel(measured.trials)
    named = set(_deciding(document))
    shown = {split_name(name)[0] for name in latency_metrics(document.normalized)}
    shapes = [shape.name for shape in document.space.shapes] or [None]
    every = ((name, named_at(name, shape)) for name in PREDICTED for shape in shapes)
    metrics = list(dict.fromkeys(full for name, full in every if full in named or name in shown))
    if all(model.errors(split_name(metric)[0]) is None for metric in metrics):
        return []
    points = _points(document.space)
    found = (_of_metric(model, metric, target, points, document.constraints) for metric in metrics)
    return [each for each in found if each is not None]


def unpredicted_metrics(
    document: SweepDocument, measured: MeasuredTarget | None, found: Sequence[HardwarePrediction]
) -> list[UnpredictedMetric]:
    """The metrics of the hardware that the sweep decides by and that are not among what was `found`, and why."""
    predicted = {each.metric for each in found}
    asked = [name for name in _deciding(document) if metric(name).stage == "hardware" and name not in predicted]
    return [UnpredictedMetric(metric=name, reason=_reason(split_name(name)[0], measured)) for name in asked]


def _deciding(document: SweepDocument) -> list[str]:
    return deciding_metrics([each["metric"] for each in document.objectives], document.normalized)


def _reason(base: str, measured: MeasuredTarget | None) -> str:
    """Why a metric is not predicted over a space; `base`: without its shape."""
    if base not in PREDICTED:
        return "no model of a device predicts it"
    rows = 0 if measured is None else len(with_metric(measured.trials, base))
    if rows < FEWEST_ROWS:
        return f"a prediction takes {FEWEST_ROWS} trials of the task on one target that measured it; there are {rows}"
    return "none of the points that were looked at is like what was measured"


def _of_metric(
    model: DeviceModel, metric: str, target: str, points: Sequence[Point], constraints: Sequence[Constraint]
) -> HardwarePrediction | None:
    base, shape = split_name(metric)
    errors = model.errors(base)
    at_shape = [(described[shape], values) for described, values in points if shape in described]
    known = [point for point in at_shape if model.knows(base, point[0])]
    prediction = model.predict(base, [described for described, _ in known]) if known else None
    if errors is None or prediction is None:
        return None
    low, median, high = (float(each) for each in np.quantile(prediction.medians, (0.05, 0.5, 0.95)))
    return HardwarePrediction(
        metric=metric,
        target=target,
        from_trials=errors.rows,
        error_share=errors.error_share,
        covered_share=errors.covered_share,
        points=len(points),
        known_points=len(known),
        low=low,
        median=median,
        high=high,
        limits=[
            PredictedLimit(constraint=constraint.text, kept_share=share)
            for constraint in constraints
            if metric in constraint.metrics
            and (share := _kept(constraint, metric, known, [float(each) for each in prediction.medians])) is not None
        ],
    )


def _kept(
    constraint: Constraint,
    metric: str,
    points: Sequence[tuple[Described, Mapping[str, Scalar]]],
    medians: Sequence[float],
) -> float | None:
    """The share of the points that keep a constraint; None if it names another metric of the hardware, too."""
    violations = [
        constraint.violation({**values, metric: median}) for (_, values), median in zip(points, medians, strict=True)
    ]
    judged = [violation for violation in violations if violation is not None]
    return sum(violation <= 0 for violation in judged) / len(judged) if judged else None


def _points(space: Space) -> list[Point]:
    """Points of the space at random that break nothing known before a trial."""
    source = random.Random(0)
    points: list[Point] = []
    for _ in range(TRIES):
        try:
            values = space.resolve(space.sample(source))
            if space.judge(values) is not None:
                continue
            static = space.static_metrics(values)
            configuration = space.configuration(values)
        except (PointError, ParameterError):
            continue
        named = named_values(configuration, static)
        described = {
            shape: describe(at, {name: of_shape[name] for name in STATIC})
            for shape, at, of_shape in at_shapes(configuration, static)
        }
        points.append((described, named))
        if len(points) == POINTS:
            break
    return points
