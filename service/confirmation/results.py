"""What a confirmation found so far: each candidate's further trainings, their intervals, and the choice's optimism."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.metric_names import MetricNames
from service.common.formatting import plural
from service.common.states import GOING_SWEEPS, TrialState
from service.confirmation import statistics
from service.confirmation.schemas import Confirmation, ConfirmationRun, ConfirmedTrial, Estimate, Interval
from service.confirmation.statistics import LEAST_SEEDS, estimate
from service.database.models import Confirmation as Row
from service.database.models import Sweep, Trial
from service.leases.feasibility import constraint_violations
from service.recommendation.choice import LOSS
from service.recommendation.further_trainings import (
    TEST_LOSS,
    FurtherTraining,
    ScoredTraining,
    by_candidate,
    is_confirmed,
    scored,
)
from service.recommendation.noise import LEAST_NATS, pooled_spread
from service.results import leaderboards
from service.sweeps import sweeps

METHOD = (
    "Every candidate is trained again from its configuration with seeds that no trial of the sweep had, and scored by "
    "its engine on the whole test split, which no sweep has seen. Expected loss: the mean over seeds, with an interval "
    "that joins the t interval over seeds and 1.96 standard errors of the split (by blocks) as independent. One "
    "further training: mean ± t·s·sqrt(1 + 1/S). Optimism: mean validation loss of the further seeds less the figure "
    "that the sweep chose by; both are of the same validation split, so the difference is the luck that selection "
    "keeps."
)


def to_schema(session: Session, row: Row, recommended: str | None) -> Confirmation:
    """What it found so far, with the trial that is recommended marked if it is among the candidates."""
    child, parent = session.get_one(Sweep, row.sweep_id), session.get_one(Sweep, row.confirms)
    originals = {trial.id: trial for trial in session.scalars(sa.select(Trial).where(Trial.id.in_(row.candidates)))}
    found = by_candidate(session, row)
    runs = {trial_id: scored(found.get(trial_id, [])) for trial_id in row.candidates}
    candidates = [
        _candidate(parent, originals[trial_id], found.get(trial_id, []), runs[trial_id], trial_id == recommended)
        for trial_id in row.candidates
        if trial_id in originals
    ]
    candidates.sort(key=lambda each: not each.recommended)
    tested = [each for each in candidates if each.test is not None]
    best = min(tested, key=lambda each: (each.test.mean if each.test else math.inf, each.trial.number), default=None)
    optimisms = [each.optimism_nats for each in candidates if each.optimism_nats is not None]
    optimism = sum(optimisms) / len(optimisms) if optimisms else None
    spread = pooled_spread([[run.validation_loss for run in each] for each in runs.values()])
    missing = _unconfirmed(session, recommended, row)
    if missing is None:
        unconfirmed = []
    elif recommended is not None and is_confirmed(session, parent.id, recommended):
        unconfirmed = [f"trial {missing}, which is recommended, has a confirmation of its own, not this one"]
    else:
        unconfirmed = _says_of_unconfirmed(missing, candidates, best, is_going=child.state in GOING_SWEEPS)
    return Confirmation(
        id=child.id,
        sweep=parent.id,
        state=child.state,  # pyright: ignore[reportArgumentType] - the table's check constraint says the same
        reason=child.reason,
        seeds=row.seeds,
        progress=sweeps.progress_of(child),
        candidates=candidates,
        best=None if best is None else best.trial.number,
        optimism_nats=optimism,
        seed_spread_nats=spread,
        says=[*unconfirmed, *_says(candidates, best, optimism, runs, names_best=not unconfirmed)],
        method=METHOD,
        created_at=child.created_at,
        ended_at=child.ended_at,
    )


def _unconfirmed(session: Session, recommended: str | None, row: Row) -> int | None:
    """The number of the recommended trial, if it is none of the candidates."""
    if recommended is None or recommended in row.candidates:
        return None
    return session.scalar(sa.select(Trial.number).where(Trial.id == recommended))


def _candidate(
    parent: Sweep,
    original: Trial,
    trainings: Sequence[FurtherTraining],
    runs: Sequence[ScoredTraining],
    recommended: bool,
) -> ConfirmedTrial:
    chosen_by = original.metrics.get(LOSS)
    validation = estimate([run.validation_loss for run in runs]) if runs else None
    test = estimate([run.test_loss for run in runs], [run.test_blocks for run in runs]) if runs else None
    optimism = None if validation is None or chosen_by is None else validation.mean - chosen_by
    found = ConfirmedTrial(
        trial=leaderboards.to_row(original),
        recommended=recommended,
        runs=[_run(training.trial) for training in trainings],
        validation=_estimate(validation),
        test=_estimate(test),
        optimism_nats=optimism,
        test_gap_nats=None if validation is None or test is None else test.mean - validation.mean,
        kept_constraints=_kept(parent, trainings),
        says=[],
    )
    return found.model_copy(update={"says": _says_of(found, chosen_by, len(runs))})


def _run(trial: Trial) -> ConfirmationRun:
    metrics = MetricNames.of_shapes(trial.configuration.get("shapes", []))
    return ConfirmationRun(
        trial=trial.id,
        seed=int(trial.configuration["training"]["seed"]),
        state=trial.state,
        reason=trial.reason,
        validation_loss=trial.metrics.get(LOSS),
        test_loss=trial.metrics.get(TEST_LOSS),
        latency_ms_p50=trial.metrics.get(metrics.resolve("latency_ms_p50")),
    )


def _kept(parent: Sweep, trainings: Sequence[FurtherTraining]) -> bool | None:
    constraints: list[str] = parent.document.get("constraints", [])
    ended = [training.trial for training in trainings if training.trial.state == TrialState.COMPLETE]
    if not ended or not constraints:
        return None
    broken = (constraint_violations(constraints, trial.configuration, trial.metrics) for trial in ended)
    return all(violation <= 0 for violations in broken for violation in violations.values())


def _estimate(found: statistics.Estimate | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(
        mean=found.mean,
        spread=found.spread,
        sampling_error=found.sampling_error,
        expected=_interval(found.expected),
        one_more=_interval(found.one_more),
    )


def _interval(found: statistics.Interval | None) -> Interval | None:
    return None if found is None else Interval(low=found.low, high=found.high)


def _says_of(found: ConfirmedTrial, chosen_by: float | None, runs: int) -> list[str]:
    if found.test is None:
        return ["no further training has been scored yet"]
    test = found.test
    says = [f"test loss {test.mean:.4f} nats, the mean of {runs} further seed{'s' if runs > 1 else ''}"]
    if test.expected is not None:
        says[0] += f"; expected {_within(test.expected)} (95 %)"
    if runs < LEAST_SEEDS:
        losses = ", ".join(f"{run.test_loss:.4f}" for run in found.runs if run.test_loss is not None)
        had = "one seed does not say how far seeds differ" if runs == 1 else f"its seeds have {losses}"
        says.append(f"{had}; an interval needs at least {LEAST_SEEDS} seeds")
    if test.one_more is not None:
        says.append(f"one further training lands {_within(test.one_more)} (95 %)")
    if found.optimism_nats is not None and chosen_by is not None and found.validation is not None:
        says.append(
            f"the sweep chose it by a validation loss of {chosen_by:.4f}; further seeds have "
            f"{found.validation.mean:.4f} there: {_optimism(found.optimism_nats)}"
        )
    if found.test_gap_nats is not None and abs(found.test_gap_nats) >= LEAST_NATS:
        harder = "harder" if found.test_gap_nats > 0 else "easier"
        says.append(
            f"the test split is {abs(found.test_gap_nats):.4f} nats {harder} than the validation split for the same "
            "trainings; baselines are of the validation split, so hold the validation loss against them"
        )
    if found.kept_constraints is False:
        says.append("a further training broke a constraint of the sweep: its limit is closer than its noise")
    return says


def _within(interval: Interval) -> str:
    low, high = f"{interval.low:.4f}", f"{interval.high:.4f}"
    return f"at {low}, within {LEAST_NATS}" if low == high else f"within {low} to {high}"


def _optimism(nats: float) -> str:
    if abs(nats) < LEAST_NATS:
        return "as the sweep had it"
    return f"the figure was {abs(nats):.4f} nats too {'good' if nats > 0 else 'bad'}"


def _flattered(optimism: float) -> str:
    """What choosing by a validation loss did to it."""
    if abs(optimism) < LEAST_NATS:
        return "further seeds have the validation losses that the sweep chose by"
    if optimism > 0:
        return f"the validation losses that the sweep chose by were {optimism:.4f} nats too good"
    return f"further seeds have validation losses {-optimism:.4f} nats lower than those that the sweep chose by"


def _says_of_unconfirmed(
    recommended: int | None, candidates: Sequence[ConfirmedTrial], best: ConfirmedTrial | None, *, is_going: bool
) -> list[str]:
    if recommended is None or not candidates:
        return []
    *others, last = [str(each.trial.number) for each in candidates]
    is_, are, confirmed = ("is", "are", "being confirmed") if is_going else ("was", "were", "confirmed")
    these = f"trials {', '.join(others)} and {last} {are}" if others else f"trial {last} {is_}"
    says = f"trial {recommended}, which is recommended, {is_} not {confirmed}: {these}"
    if best is not None and best.test is not None:
        says += f". Of those, trial {best.trial.number} has the lowest mean test loss, {best.test.mean:.4f} nats"
    return [says]


def _says(
    candidates: Sequence[ConfirmedTrial],
    best: ConfirmedTrial | None,
    optimism: float | None,
    runs: Mapping[str, Sequence[ScoredTraining]],
    *,
    names_best: bool,
) -> list[str]:
    """What the candidates say together; which is best alone if `names_best`: a sentence before may have said it."""
    says: list[str] = []
    first = candidates[0] if candidates else None
    if optimism is not None:
        says.append(f"{_flattered(optimism)}, on average over {plural(len(candidates), 'candidate')}")
    if first is None or best is None or first.test is None:
        return says
    if best.trial.trial == first.trial.trial:
        if names_best and len(candidates) > 1:
            says.append(f"trial {first.trial.number} has the lowest mean test loss of the candidates")
        return says
    between = statistics.difference(runs[first.trial.trial], runs[best.trial.trial])
    width = 2 * (between.standard_error or 0.0)
    error = f" ± {width:.4f}" if width >= LEAST_NATS else ""
    clear = "clearly better" if between.is_clear else "not clearly better"
    says.append(
        f"trial {best.trial.number} has the lowest mean test loss: {clear} than trial {first.trial.number} by "
        f"{between.nats:.4f}{error} nats"
    )
    return says
