"""What is decided about a training when it reaches a rung: from the sweep's own trials, in the reporting transaction.

A decision is made once, when the first report comes that reaches the rung, and stays. It rests on what the curve shows
up to the rung, and on the trials that were complete by then: the sweep's event `sequence` says when that was, and the
events before it are the same for whoever looks again. Its row is what the next decisions are fitted to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layers.declarations.training import step_count
from layers.space.document_fields import Objective
from service.common.rungs import Shown, rung_steps, shown_at
from service.common.states import TrialState
from service.database.json_columns import PredictedFigure, PredictedHardware
from service.database.models import Attempt, Event, Measurement, Report, Sweep, Trial
from service.database.pruning_models import PruningDecision
from service.leases.statements import Row
from service.leases.trials import FIRST_TRAINING
from service.pruning.choice import ASHA, NONE, objective_of_training
from service.pruning.forecast import LEAST_FINISHED, MODEL_VERSION, Floats, Forecast, forecast
from service.pruning.fronts import HALVING_RUNGS, bound_of, goes_on

LEAST_CHANCE = 0.05
"""To be on the front: what has less is stopped."""

ONE_IN = 20
"""So many trials, one of them by chance, is never stopped: their ends measure what pruning loses."""

CONTINUE, PRUNE, SPARE = "continue", "prune", "spare"

_ATTEMPT = (
    sa.select(
        Sweep.id.label("sweep_id"),
        Sweep.pruner,
        Sweep.objectives,
        Sweep.document[("search", "seed")].as_integer().label("seed"),
        Sweep.event_counter,
        Trial.number,
        Trial.configuration,
        Trial.metrics,
        Trial.started_from,
        Trial.predicted,
        Trial.promoted,
        Attempt.early_metrics,
    )
    .join(Trial, Trial.sweep_id == Sweep.id)
    .join(Attempt, Attempt.trial_id == Trial.id)
    .where(
        Trial.id == sa.bindparam("of_trial"),
        Attempt.attempt == sa.bindparam("attempt_number"),
        Sweep.pruner != NONE,
        Trial.replicate_of.is_(None),
    )
)
_MADE = sa.select(PruningDecision.rung, PruningDecision.verdict, PruningDecision.reason).where(
    PruningDecision.trial_id == sa.bindparam("of_trial"), PruningDecision.attempt == sa.bindparam("attempt_number")
)
_CURVE = (
    sa.select(Report.step, Report.values)
    .where(Report.trial_id == sa.bindparam("of_trial"), Report.attempt == sa.bindparam("attempt_number"))
    .where(Report.step <= sa.bindparam("until"))
    .order_by(Report.step)
)
_COMPLETE = (
    sa.select(
        Trial.number,
        Trial.metrics,
        Trial.configuration,
        Trial.feasible,
        PruningDecision.shown,
        PruningDecision.loss,
        Measurement.data.label("first_training"),
    )
    .join(
        Measurement,
        sa.and_(Measurement.trial_id == Trial.id, Measurement.name == FIRST_TRAINING),
        isouter=True,
    )
    .join(
        PruningDecision,
        sa.and_(
            PruningDecision.trial_id == Trial.id,
            PruningDecision.attempt == Trial.attempt,
            PruningDecision.rung == sa.bindparam("at_rung"),
        ),
        isouter=True,
    )
    .where(Trial.sweep_id == sa.bindparam("of_sweep"), Trial.state == TrialState.COMPLETE)
    .where(Trial.replicate_of.is_(None))
    .where(
        sa.exists().where(
            Event.sweep_id == Trial.sweep_id,
            Event.trial_id == Trial.id,
            Event.kind == "trial.ended",
            # It may have ended otherwise before: pruned and promoted, or failed and tried again.
            Event.data["state"].as_string() == TrialState.COMPLETE,
            Event.sequence <= sa.bindparam("until_event"),
        )
    )
    .order_by(Trial.number)
)
_PROMOTED = sa.select(Event.sequence).where(
    Event.sweep_id == sa.select(Trial.sweep_id).where(Trial.id == sa.bindparam("of_trial")).scalar_subquery(),
    Event.trial_id == sa.bindparam("of_trial"),
    Event.kind == "trial.promoted",
    Event.sequence <= sa.bindparam("until_event"),
)
_PASSED = (
    sa.select(PruningDecision.known, PruningDecision.loss)
    .where(
        PruningDecision.sweep_id == sa.bindparam("of_sweep"),
        PruningDecision.rung == sa.bindparam("at_rung"),
        PruningDecision.shown == sa.bindparam("shown"),
        PruningDecision.sequence <= sa.bindparam("until_event"),
        PruningDecision.trial_id != sa.bindparam("other_than"),
    )
    .order_by(PruningDecision.sequence, PruningDecision.trial_id)
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A trial under way at a rung: all that the decision about it rests on."""

    trial_id: str
    sweep_id: str
    sequence: int
    pruner: str
    objectives: Sequence[Objective]
    rung: int
    step: int
    steps: int
    shown: Shown
    known: Mapping[str, float]
    predicted: Mapping[str, PredictedFigure]
    """Metrics that nobody has measured yet: in `known` stand the medians of their intervals."""
    configuration: Configuration
    parameter_count: float
    protection: str | None
    """Why it is never stopped; None if it may be."""
    is_promoted: bool
    """It was stopped, and is trained to its end now: somebody chose it, so it says nothing of what pruning loses."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a training, and why."""

    verdict: str
    reason: str
    finished: int = 0
    forecast: Forecast | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class _CompleteTrial:
    """A trial that was trained to its end, and what it had shown at the rung, if it was judged there."""

    metrics: Mapping[str, float]
    configuration: Configuration
    feasible: bool
    shown: Shown | None


def decide(session: Session, trial_id: str, attempt: int, reached: int) -> str | None:
    """Judge an attempt that has reported up to the step `reached`; why it is to be pruned, None if it goes on.

    To be called in the transaction that stored the report. Reports after a decision to prune are answered the same.
    """
    connection = session.connection()
    key = {"of_trial": trial_id, "attempt_number": attempt}
    row = connection.execute(_ATTEMPT, key).one_or_none()
    if row is None:
        return None
    steps = step_count(row.configuration["training"])
    if steps is None:
        return None
    made = {rung: (verdict, reason) for rung, verdict, reason in connection.execute(_MADE, key)}
    for rung, step in enumerate(rung_steps(steps)):
        if rung in made or step > reached or any(verdict == PRUNE for verdict, _ in made.values()):
            continue
        curve = connection.execute(_CURVE, key | {"until": step}).all()
        shown = shown_at(step, [(at, cast("Mapping[str, object]", values)) for at, values in curve])
        if shown is None:
            continue
        judged = _judged(trial_id, row, rung, step, steps, shown)
        decision = judge(session, judged) if reached < steps else Decision(CONTINUE, "it had ended when this was read")
        session.add(_as_row(judged, attempt, decision))
        session.flush()
        made[rung] = (decision.verdict, decision.reason)
    return next((reason for verdict, reason in made.values() if verdict == PRUNE), None)


def judge(session: Session, judged: Judged) -> Decision:
    """Decide from the rows as they were at the event `judged.sequence`. Writes nothing."""
    objective = objective_of_training(judged.objectives)
    assert objective is not None, "a sweep with a pruner has one objective of the training"
    others = [each for each in judged.objectives if each is not objective]
    unknown = [each["metric"] for each in others if each["metric"] not in judged.known]
    if unknown:
        return Decision(CONTINUE, f"not reported before the training: {', '.join(unknown)}")
    complete = _complete(session, judged)
    alike = [each for each in complete if each.shown is not None and each.shown.metric == judged.shown.metric]
    if len(alike) < LEAST_FINISHED:
        return Decision(CONTINUE, f"{len(alike)} of {LEAST_FINISHED} trials have finished to judge by", len(alike))
    sign = sign_of(objective)
    expected = forecast(
        np.array([_features(each.configuration, each.metrics["parameter_count"], each.shown) for each in alike]),
        np.array([sign * each.metrics[objective["metric"]] for each in alike]),
        np.array(_features(judged.configuration, judged.parameter_count, judged.shown)),
    )
    if judged.pruner == ASHA:
        verdict, reason, chance = *_by_halving(session, judged, others), None
    else:
        verdict, reason, chance = _by_chance(judged, objective, others, complete, expected)
    if verdict == PRUNE and judged.is_promoted and _was_promoted(session, judged):
        verdict, reason = CONTINUE, f"it was promoted: it would be stopped, as {reason}"
    elif verdict == PRUNE and judged.protection is not None:
        verdict, reason = SPARE, f"{judged.protection}: it would be stopped, as {reason}"
    shown_forecast = expected and Forecast(sign * expected.mean, expected.scale, expected.freedom)
    return Decision(verdict, reason, len(alike), shown_forecast, chance)


def judged_again(session: Session, decision: PruningDecision) -> Decision:
    """The same decision from the rows that are there now: what a stored one is checked against."""
    key = {"of_trial": decision.trial_id, "attempt_number": decision.attempt}
    row = session.connection().execute(_ATTEMPT, key).one()
    shown = Shown(decision.shown, decision.loss)
    judged = _judged(decision.trial_id, row, decision.rung, decision.step, decision.steps, shown, decision.sequence)
    return judge(session, judged)


def is_control(seed: int, number: int) -> bool:
    """Whether the trial is one of those that are never stopped, by the sweep's seed and its number."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/control".encode()).digest()[:4]) % ONE_IN == 0


def _by_chance(
    judged: Judged,
    objective: Objective,
    others: Sequence[Objective],
    complete: Sequence[_CompleteTrial],
    expected: Forecast | None,
) -> tuple[str, str, float | None]:
    if expected is None:
        return CONTINUE, "too few trials have finished to judge by", None
    feasible = [each for each in complete if each.feasible]
    bound = bound_of(
        np.array([costs_of(others, each.metrics) for each in feasible]).reshape(len(feasible), len(others)),
        np.array([sign_of(objective) * each.metrics[objective["metric"]] for each in feasible]),
        np.array(costs_of(others, _at_best(judged, others))),
    )
    chance = expected.chance_below(bound)
    if math.isinf(bound):
        return CONTINUE, "no trial is as good in the other objectives", chance
    sign, metric = sign_of(objective), objective["metric"]
    elsewhere = "predicted elsewhere" if judged.predicted else "elsewhere"
    rivals = f"trials at least as good {elsewhere} reach" if others else "the best trial reaches"
    text = (
        f"after {judged.step} of {judged.steps} steps its {judged.shown.metric} is {judged.shown.loss:.4g}: expected "
        f"{metric} {sign * expected.mean:.4g} ± {expected.spread:.2g}, {rivals} {sign * bound:.4g}, so its chance to "
        f"be on the front is {chance:.1%}"
    )
    return (PRUNE if chance < LEAST_CHANCE else CONTINUE), text, chance


def _at_best(judged: Judged, others: Sequence[Objective]) -> Mapping[str, float]:
    """The costs beside the loss, a predicted one by its favourable end: it may be as good as that."""
    ends = {each["metric"]: "high" if each["goal"] == "maximize" else "low" for each in others}
    return {
        name: judged.predicted[name][ends[name]] if name in judged.predicted else value
        for name, value in judged.known.items()
    }


def _by_halving(session: Session, judged: Judged, others: Sequence[Objective]) -> tuple[str, str]:
    if judged.rung not in HALVING_RUNGS:
        return CONTINUE, "asha stops no training here"
    given = {
        "of_sweep": judged.sweep_id,
        "at_rung": judged.rung,
        "shown": judged.shown.metric,
        "until_event": judged.sequence,
        "other_than": judged.trial_id,
    }
    rows = [
        (known, loss)
        for known, loss in session.connection().execute(_PASSED, given)
        if all(each["metric"] in known for each in others)
    ]
    costs: Floats = np.array(
        [[*costs_of(others, known), loss] for known, loss in (*rows, (judged.known, judged.shown.loss))]
    )
    text = (
        f"after {judged.step} of {judged.steps} steps its {judged.shown.metric} is {judged.shown.loss:.4g}, and it is "
        f"{{}} the best third of the {len(costs)} trials that came as far"
    )
    return (CONTINUE, text.format("among")) if goes_on(costs) else (PRUNE, text.format("not among"))


def _judged(trial_id: str, row: Row, rung: int, step: int, steps: int, shown: Shown, sequence: int = 0) -> Judged:
    early: Mapping[str, float] = row.early_metrics or {}
    stored: PredictedHardware | None = row.predicted
    predicted = {} if stored is None else {name: at for name, at in stored["figures"].items() if name not in early}
    # What is measured after the training is among the metrics of a trial that is looked at again.
    found = {**row.metrics, **{name: figure["median"] for name, figure in predicted.items()}, **early}
    objective = objective_of_training(row.objectives)
    protection = f"it is the start {row.started_from}" if row.started_from else None
    if protection is None and is_control(row.seed, row.number):
        protection = f"it is one of the trials, 1 in {ONE_IN}, that are never stopped"
    return Judged(
        trial_id=trial_id,
        sweep_id=row.sweep_id,
        sequence=sequence or row.event_counter,
        pruner=row.pruner,
        objectives=row.objectives,
        rung=rung,
        step=step,
        steps=steps,
        shown=shown,
        known={
            each["metric"]: found[each["metric"]]
            for each in row.objectives
            if each != objective and each["metric"] in found
        },
        predicted=predicted,
        configuration=row.configuration,
        parameter_count=row.metrics["parameter_count"],
        protection=protection,
        is_promoted=row.promoted,
    )


def _as_row(judged: Judged, attempt: int, decision: Decision) -> PruningDecision:
    expected = decision.forecast
    return PruningDecision(
        trial_id=judged.trial_id,
        attempt=attempt,
        rung=judged.rung,
        sweep_id=judged.sweep_id,
        sequence=judged.sequence,
        model_version=MODEL_VERSION,
        step=judged.step,
        steps=judged.steps,
        shown=judged.shown.metric,
        loss=judged.shown.loss,
        known=dict(judged.known),
        finished=decision.finished,
        predicted=expected and expected.mean,
        spread=expected and expected.spread,
        chance=decision.chance,
        verdict=decision.verdict,
        reason=decision.reason,
    )


def _complete(session: Session, judged: Judged) -> list[_CompleteTrial]:
    given = {"of_sweep": judged.sweep_id, "at_rung": judged.rung, "until_event": judged.sequence}
    return [
        _CompleteTrial(
            _of_own_training(row),
            row.configuration,
            bool(row.feasible),
            None if row.loss is None else Shown(row.shown, row.loss),
        )
        for row in session.connection().execute(_COMPLETE, given)
    ]


def _of_own_training(row: Row) -> Mapping[str, float]:
    """The figures of a trial's own training: its curve led there, and further trainings change them later."""
    return row.metrics if row.first_training is None else {**row.metrics, **row.first_training["metrics"]}


def _was_promoted(session: Session, judged: Judged) -> bool:
    given = {"of_trial": judged.trial_id, "until_event": judged.sequence}
    return session.connection().execute(_PROMOTED, given).one_or_none() is not None


def _features(configuration: Configuration, parameter_count: float, shown: Shown | None) -> list[float]:
    """What a prediction goes by: the loss at the rung, the model's size, and its learning rate."""
    assert shown is not None, "only trials that were judged at the rung are compared"
    rate = cast("float", configuration["training"]["learning_rate"])
    return [shown.loss, math.log(parameter_count), math.log(rate)]


def costs_of(objectives: Sequence[Objective], metrics: Mapping[str, float]) -> list[float]:
    """The objectives' values with the sign by which less is better."""
    return [sign_of(each) * metrics[each["metric"]] for each in objectives]


def sign_of(objective: Objective) -> float:
    """What makes a cost of the objective's value."""
    return -1.0 if objective["goal"] == "maximize" else 1.0
