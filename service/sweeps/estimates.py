"""What a sweep will cost in device time, from what comparable trials cost: before anything runs.

A trial's time is the sum of its training and of the rest. The rest is the same for each shape that the trial is
measured at. The training takes a part for each step and a part in proportion to its floating-point operations (three
times those of a forward pass a token); both are fitted to the recorded `train_seconds` by least squares without
negative parts. A trial is comparable if it trained for enough steps of a large enough model: one step says nothing of
hundreds.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from scipy.optimize import nnls
from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layers.declarations.training import step_count
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
STEPS_REACH = 5.0
"""How many times the steps of a comparable trial a sweep's trainings may have."""
SIZE_REACH = 10.0
"""The same of the floating-point operations of a step."""
POINTS = 60
TRIES = 2000
FEWEST_POINTS = 5
"""Points that the estimate rests on, if there are as many, however long they take."""
SECONDS = 1.0
"""Of this thread's CPU time, after which it rests on as many points as it has."""
_BACKWARD = 3.0

_Floats = npt.NDArray[np.float64]


def estimate(
    session: Session, prepared: ValidatedDocument, *, alive_seconds: float, project: str = "default"
) -> sweep_schemas.CostEstimate | None:
    """What the budget's trials will take; None if fewer than three comparable trials have run."""
    document = prepared.document
    past = _past_trials(session, document.task, document.target_runtime, project)
    jobs = _jobs(document.space) if len(past) >= FEWEST_TRIALS else []
    past = _comparable(past, jobs)
    if not jobs or len(past) < FEWEST_TRIALS:
        return None
    model = _fit(past)
    trial_seconds = statistics.fmean(model.seconds(job) for job in jobs)
    budget, target = document.budget, past[0].target
    parallel, devices = budget["parallel"], float(budget["parallel"] if budget["parallel"] != AUTO else 0)
    if parallel == AUTO:
        # The slots of a worker share its device: they are no devices more.
        share = slot_shares.share_of_another(session, project, target, document.target_labels, alive_seconds)
        parallel, devices = share.slots, share.devices
    limits = [
        trial_seconds * budget["trials"],
        *([] if (device := budget.get("device_seconds")) is None else [device]),
        *([] if (wall := budget.get("wall_seconds")) is None else [wall * devices]),
    ]
    device_seconds = min(limits)
    return sweep_schemas.CostEstimate(
        trial_seconds=trial_seconds,
        device_seconds=device_seconds,
        wall_seconds=device_seconds / devices,
        trials=min(budget["trials"], math.floor(device_seconds / max(trial_seconds, 1e-9) + 1e-6)),
        parallel=parallel,
        from_trials=len(past),
        from_points=len(jobs),
        target=target,
        median_error_share=_error_share(past),
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """What a trial has to do."""

    shapes: int
    steps: int
    """Of its training; 0 if it has none, or a budget in seconds."""
    step_flops: float
    """Floating-point operations of one step."""
    given_seconds: float
    """Of a training whose budget is in seconds; else 0."""


@dataclass(frozen=True, slots=True)
class _PastTrial:
    """What an earlier trial had to do, and what it took of its device: for its training, and besides."""

    job: _Job
    training_seconds: float
    other_seconds: float
    target: str

    @property
    def seconds(self) -> float:
        return self.training_seconds + self.other_seconds


@dataclass(frozen=True, slots=True)
class _TimeModel:
    """Seconds of a device for each part of a job."""

    a_shape: float
    a_step: float
    a_flop: float

    def seconds(self, job: _Job) -> float:
        training = job.given_seconds + job.steps * (self.a_step + self.a_flop * job.step_flops)
        return self.a_shape * job.shapes + training


def _past_trials(session: Session, task: str, runtime: str | None, project: str) -> list[_PastTrial]:
    """The newest complete trials of the task, all on the target of the newest: times of another device say nothing."""
    query = (
        sa.select(Trial.configuration, Trial.metrics, Trial.target_key)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(Trial.project == project, Sweep.task == task)
        .where(Trial.state == TrialState.COMPLETE, Trial.reused_from.is_(None), Trial.attempt > 0)
        .where(Trial.replicate_of.is_(None))
        .order_by(Trial.id.desc())
        .limit(MOST_TRIALS)
    )
    past = [
        trial
        for configuration, metrics, target in session.execute(query)
        if (runtime is None or target.startswith(f"{runtime} "))
        and (trial := _past_trial(configuration, metrics, target)) is not None
    ]
    return [each for each in past if each.target == past[0].target]


def _past_trial(configuration: Configuration, metrics: Mapping[str, float], target: str) -> _PastTrial | None:
    """None of one whose work or time is not known."""
    flops = _flops(configuration, metrics)
    if flops is None or "device_seconds" not in metrics:
        return None
    job = _job(configuration, flops)
    if job.steps and "train_seconds" not in metrics:
        return None
    # A device that slots share is charged in parts: a training then took less of it than its own seconds.
    training = min(float(metrics.get("train_seconds", 0.0)), float(metrics["device_seconds"]))
    return _PastTrial(job, training, float(metrics["device_seconds"]) - training, target)


def _comparable(past: Sequence[_PastTrial], jobs: Sequence[_Job]) -> list[_PastTrial]:
    """The trials whose trainings were long and large enough to speak of the jobs'."""
    if not jobs:
        return []
    steps = statistics.median(job.steps for job in jobs) / STEPS_REACH
    flops = statistics.median(job.step_flops for job in jobs) / SIZE_REACH
    return [each for each in past if each.job.steps >= steps and each.job.step_flops >= flops]


def _fit(past: Sequence[_PastTrial]) -> _TimeModel:
    shapes = np.array([[float(each.job.shapes)] for each in past])
    a_shape = _least_squares(shapes, np.array([each.other_seconds for each in past]))[0]
    trained = [each for each in past if each.job.steps]
    if not trained:
        return _TimeModel(a_shape, 0.0, 0.0)
    scale = max(each.job.steps * each.job.step_flops for each in trained) or 1.0
    steps = max(each.job.steps for each in trained)
    work = [[each.job.steps / steps, each.job.steps * each.job.step_flops / scale] for each in trained]
    found = _least_squares(np.array(work), np.array([each.training_seconds for each in trained]))
    return _TimeModel(a_shape, found[0] / steps, found[1] / scale)


def _least_squares(rows: _Floats, seconds: _Floats) -> list[float]:
    coefficients, _ = nnls(rows, seconds)
    return [float(each) for each in coefficients]


def _error_share(past: Sequence[_PastTrial]) -> float:
    """The median error when each trial is predicted from the others, as a share of what it took."""
    errors = [
        abs(_fit([*past[:place], *past[place + 1 :]]).seconds(each.job) - each.seconds) / max(each.seconds, 1e-9)
        for place, each in enumerate(past)
    ]
    return float(statistics.median(errors))


def _flops(configuration: Configuration, metrics: Mapping[str, float]) -> float | None:
    """Of one inference at the first shape; None if it is not known."""
    return metrics.get(MetricNames.of_shapes(configuration.get("shapes", [])).resolve("flops"))


def _job(configuration: Configuration, flops: float) -> _Job:
    """`flops`: of one inference at the first shape."""
    inference, training = configuration["inference"], configuration["training"]
    tokens_measured = int(inference["batch_size"]) * int(inference["sequence_length"])
    tokens_a_step = math.prod(int(training.get(name, 0)) for name in ("batch_size", "sequence_length"))
    return _Job(
        shapes=max(1, len(configuration.get("shapes", []))),
        steps=(step_count(training) or 0) if training else 0,
        step_flops=_BACKWARD * flops / tokens_measured * tokens_a_step,
        given_seconds=float(training.get("seconds") or 0.0),
    )


def _jobs(space: Space) -> list[_Job]:
    """What some points that the sweep may try have to do: POINTS, or as many as there is time for."""
    source = random.Random(0)
    allowed = AllowedTime(SECONDS)
    jobs: list[_Job] = []
    for tried in range(TRIES):
        if allowed.is_over and (len(jobs) >= FEWEST_POINTS or tried >= POINTS):
            break
        try:
            values = space.resolve(space.sample(source))
            if space.judge(values) is None:
                configuration = space.configuration(values)
                jobs.append(_job(configuration, _flops(configuration, space.static_metrics(values)) or 0.0))
        except (PointError, ParameterError):
            continue
        if len(jobs) >= POINTS:
            break
    return jobs
