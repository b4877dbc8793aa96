"""What a sweep will cost in device time, from what earlier trials cost: before anything runs.

A trial's time is taken as a fixed part for each shape that it is measured at and a part in proportion to its work
(floating-point operations of training, three times those of a forward pass a token), fitted by least squares without
negative parts.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from scipy.optimize import nnls
from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layers.expressions.metric_names import MetricNames
from layers.parameter import ParameterError
from layers.space.allowed_time import AllowedTime
from layers.space.document_fields import AUTO
from layers.space.evaluation import PointError
from layers.space.space import Space
from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.sweeps import schemas as sweep_schemas
from service.sweeps import slot_shares
from service.sweeps.drafts import ValidatedDocument

MOST_TRIALS = 300
FEWEST_TRIALS = 3
POINTS = 60
TRIES = 2000
FEWEST_POINTS = 5
"""Points that the estimate rests on, where there are as many, however long they take."""
SECONDS = 1.0
"""Of this thread's CPU time, after which it rests on as many points as it has."""
_BACKWARD = 3.0


def estimate(
    session: Session, prepared: ValidatedDocument, *, alive_seconds: float, project: str = "default"
) -> sweep_schemas.CostEstimate | None:
    """The device time of the whole budget; None where too few trials of the task have run to say anything."""
    document = prepared.document
    query = (
        sa.select(Trial.configuration, Trial.metrics, Trial.target_key)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(Trial.project == project, Sweep.task == document.task)
        .where(Trial.state == TrialState.COMPLETE, Trial.reused_from.is_(None), Trial.attempt > 0)
        .where(Trial.replicate_of.is_(None))
        .order_by(Trial.id.desc())
        .limit(MOST_TRIALS)
    )
    runtime = document.target_runtime
    past = [
        _PastTrial(_work(configuration, flops), _shapes(configuration), float(metrics["device_seconds"]), target)
        for configuration, metrics, target in session.execute(query)
        if (flops := _flops(configuration, metrics)) is not None
        and "device_seconds" in metrics
        and (runtime is None or target.startswith(runtime))
    ]
    # Times of another device say nothing: the newest trial's target speaks.
    past = [each for each in past if each.target == past[0].target]
    works = _works(document.space) if len(past) >= FEWEST_TRIALS else []
    if not works:
        return None
    scale = max(each.work for each in past) or 1.0
    rows = np.array([[each.shapes, each.work / scale] for each in past])
    seconds = np.array([each.seconds for each in past])
    coefficients, _ = nnls(rows, seconds)
    errors = np.abs(rows @ coefficients - seconds) / np.maximum(seconds, 1e-9)
    fixed = coefficients[0] * max(1, len(document.space.shapes))
    trial_seconds = statistics.fmean(float(fixed + coefficients[1] * work / scale) for work in works)
    budget, target = document.budget, past[0].target
    device_seconds = trial_seconds * budget["trials"]
    limit = budget.get("device_seconds")
    if limit is not None:
        device_seconds = min(device_seconds, limit)
    parallel, devices = budget["parallel"], float(budget["parallel"] if budget["parallel"] != AUTO else 0)
    if parallel == AUTO:
        # The slots of a worker share its device: they are no devices more.
        parallel = slot_shares.share_of_another(session, project, target, alive_seconds)
        devices = slot_shares.devices_of_another(session, project, target, alive_seconds)
    return sweep_schemas.CostEstimate(
        trial_seconds=trial_seconds,
        device_seconds=device_seconds,
        wall_seconds=device_seconds / devices,
        parallel=parallel,
        from_trials=len(past),
        from_points=len(works),
        target=target,
        median_error_share=float(np.median(errors)),
    )


@dataclass(frozen=True, slots=True)
class _PastTrial:
    """What an earlier trial took of its device, and what for."""

    work: float
    shapes: int
    seconds: float
    target: str


def _shapes(configuration: Configuration) -> int:
    return max(1, len(configuration.get("shapes", [])))


def _flops(configuration: Configuration, metrics: Mapping[str, float]) -> float | None:
    """Of one inference at the first shape; None where it is not known."""
    return metrics.get(MetricNames.of_shapes(configuration.get("shapes", [])).resolve("flops"))


def _work(configuration: Configuration, flops: float) -> float:
    """Floating-point operations of a trial's training."""
    inference, training = configuration["inference"], configuration["training"]
    tokens_measured = int(inference["batch_size"]) * int(inference["sequence_length"])
    tokens_trained = math.prod(int(training.get(name, 0)) for name in ("steps", "batch_size", "sequence_length"))
    return _BACKWARD * flops / tokens_measured * tokens_trained


def _works(space: Space) -> list[float]:
    """The work of some points that the sweep may try: POINTS, or as many as there is time for."""
    source = random.Random(0)
    allowed = AllowedTime(SECONDS)
    works: list[float] = []
    for tried in range(TRIES):
        if allowed.is_over and (len(works) >= FEWEST_POINTS or tried >= POINTS):
            break
        try:
            values = space.resolve(space.sample(source))
            if space.judge(values) is None:
                configuration = space.configuration(values)
                flops = _flops(configuration, space.static_metrics(values))
                works.append(_work(configuration, flops or 0.0))
        except (PointError, ParameterError):
            continue
        if len(works) >= POINTS:
            break
    return works
