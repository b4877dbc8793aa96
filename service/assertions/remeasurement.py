"""The sweep that measures one trial anew: the same configuration in several builds, and hardly a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layers.declarations.inference.shapes import SHAPE_PARAMETERS, SHAPES
from layers.expressions.metric_names import MetricNames
from layers.parameter import Scalar
from layersweep.json_values import JsonObject
from service.assertions import limits
from service.assertions.limits import Limit
from service.assertions.rank_intervals import MOST_BUILDS
from service.common.states import TrialState
from service.database.models import Dataset, Sweep, Trial
from service.errors import NotFoundError, Problem, UnprocessableError
from service.recommendation.recommend import recommend
from service.sweeps import sweeps

SEEDS = {"min": 0, "max": 2 * MOST_BUILDS - 1}
"""Other weights in each build: the same graph would be answered with the engine that a worker has kept of it. Twice as
many as builds that are judged, as some may fail; few enough to be counted, not sampled, when the document is read."""

FAILURES = 3
"""Builds that may fail before a measurement is given up."""

SHORTEST_TRAINING: dict[str, Scalar] = {"steps": 1, "batch_size": 1}
"""How fast an engine is does not depend on what its weights have learnt."""


def document_of(
    session: Session, sweep_id: str, *, number: int | None, texts: Sequence[str], builds: int
) -> JsonObject:
    """The sweep document that measures a trial anew, for these limits, in so many builds.

    `number`: the trial (None: the recommended one). It is trained a single step, or as it was if a limit is on what
    it learnt. Raises NotFoundError if there is no such trial, UnprocessableError for limits that cannot be judged.
    """
    sweep = sweeps.get(session, sweep_id)
    asked = limits.read(texts, MetricNames.of(sweep.document))
    trial = _trial(session, sweep, number)
    if sweep.task == "probe" or sweep.dataset_id is None:
        raise UnprocessableError(
            f"a sweep for {sweep.task} has no training whose seed makes one build another than the next: "
            "put the layers into a model of a task with data"
        )
    dataset = session.get_one(Dataset, sweep.dataset_id)
    return {
        **measuring_document(trial.configuration, asked, builds),
        "name": f"{sweep.name}/{trial.number} measured anew"[:200],
        "dataset": dataset.name,
        **_target(sweep),
    }


def measuring_document(configuration: Configuration, asked: Sequence[Limit], builds: int) -> JsonObject:
    """A sweep document whose points are all of this configuration, but for the training; without name and data."""
    return {
        "task": configuration["task"],
        "model": dict(configuration["model"]),
        "training": _training(configuration, asked),
        "inference": _inference(configuration),
        "objectives": [{"metric": metric} for metric in limits.metrics_of(asked)],
        "budget": {"trials": builds, "failures": FAILURES},
        "search": {
            "sampler": "random",
            "reuse": False,
            "transfer": False,
            "hardware_first": "never",
            "replicates": 0,
            "pruner": "none",
        },
    }


def _trial(session: Session, sweep: Sweep, number: int | None) -> Trial:
    if number is None:
        return session.get_one(Trial, recommend(session, sweep).trial.trial)
    found = session.scalar(select(Trial).where(Trial.sweep_id == sweep.id, Trial.number == number))
    if found is None:
        raise NotFoundError(f"the sweep has no trial {number}")
    if found.state != TrialState.COMPLETE:
        detail = f"trial {number} is {found.state}: what is measured anew was measured to its end once"
        raise UnprocessableError(detail, problems=[Problem("/trial", detail, "the number of a complete trial")])
    return found


def _training(configuration: Configuration, asked: Sequence[Limit]) -> dict[str, Scalar | Mapping[str, int]]:
    learnt = any(limit.stage == "quality" for limit in asked)
    return {**(configuration["training"] if learnt else SHORTEST_TRAINING), "seed": SEEDS}


def _inference(configuration: Configuration) -> JsonObject:
    inference: JsonObject = dict(configuration["inference"])
    if (shapes := configuration.get("shapes")) is None:
        return inference
    return {name: value for name, value in inference.items() if name not in SHAPE_PARAMETERS} | {
        SHAPES: [dict(shape) for shape in shapes]
    }


def _target(sweep: Sweep) -> JsonObject:
    """What the sweep asked of its workers, and the runtime that it came to."""
    runtime = sweep.target_runtime or (None if sweep.target is None else sweep.target["runtime"])
    asked = {"runtime": runtime, "labels": sweep.labels}
    given = {name: value for name, value in asked.items() if value}
    return {"target": given} if given else {}
