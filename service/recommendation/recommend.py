"""The recommended trial of a sweep, chosen from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.metric_names import MetricNames
from layers.metrics import Goal
from service.common import formatting
from service.common.states import ENDED_SWEEPS
from service.database.models import Sweep, Trial
from service.errors import NoFeasibleTrialError, Problem, UnprocessableError
from service.recommendation import smaller as overfitting
from service.recommendation.baselines.comparison import Baseline, baseline_of, compare
from service.recommendation.choice import (
    Candidate,
    Choice,
    NothingWithinError,
    Smaller,
    candidate_of,
    choose,
    goals_of,
    rule_in_words,
)
from service.recommendation.further_trainings import confirmed_losses
from service.recommendation.measured_noise import noise_of
from service.recommendation.neighbours import best_under_limits
from service.recommendation.preferences import SelectionPreferences
from service.recommendation.schemas import BaselineComparison, Neighbour, Recommendation, SmallerTrial
from service.recommendation.uncertainty import Noise
from service.results import leaderboards


@dataclass(frozen=True, slots=True)
class Recommended:
    """What was chosen, and everything that the choice rests on."""

    sweep: Sweep
    wishes: SelectionPreferences
    goals: dict[str, Goal]
    choice: Choice
    smaller: Smaller | None
    unconfirmed: Smaller | None
    """A still smaller trial, which would have to be confirmed before it takes the place of a confirmed one."""
    noise: Noise
    """Of the rule's own choice, before a smaller trial took its place: what the rule weighs differences by."""
    figures_noise: Noise
    """Of the recommended trial's own figures."""
    baseline: Baseline | None
    trials: Mapping[str, Trial] = field(repr=False)
    """The trials of the front, and the smaller ones, by id."""
    is_confirmed: bool = False
    """Whether trials of the sweep were confirmed."""
    comparison: BaselineComparison | None = None
    under_limits: Neighbour | None = None

    @property
    def candidate(self) -> Candidate:
        return self.choice.chosen if self.smaller is None else self.smaller.candidate

    @property
    def trial(self) -> Trial:
        return self.trials[self.candidate.id]

    def answer(self) -> Recommendation:
        return Recommendation(
            sweep=self.sweep.id,
            rule=rule_in_words(
                self.wishes,
                self.sweep.task,
                self.goals,
                self.baseline and self.baseline.words,
                is_confirmed=self.is_confirmed,
            ),
            trial=leaderboards.to_row(self.trial),
            configuration=self.trial.configuration,
            baseline=self.comparison,
            under_limits=self.under_limits,
            final=self.sweep.state in ENDED_SWEEPS,
        )

    def smaller_in_words(self) -> SmallerTrial | None:
        """Why a smaller trial is recommended in place of the one that the rule chose; None if none is."""
        if self.smaller is None:
            return None
        return overfitting.in_words(self.smaller, leaderboards.to_row(self.trials[self.smaller.instead_of.id]))

    def unconfirmed_in_words(self) -> str | None:
        """Which smaller trial may be as good, and was not confirmed as the recommended one was; None if none is."""
        return None if self.unconfirmed is None else overfitting.unconfirmed_in_words(self.unconfirmed)


def decide(session: Session, sweep: Sweep, wishes: SelectionPreferences) -> Recommended:
    """Choose on the front. Raises NoFeasibleTrialError while there is none, UnprocessableError if no trial is within
    the wishes."""
    # In one order, whatever the database: the noise that is drawn for a trial depends on its place.
    of_front = sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1).order_by(Trial.number)
    front = session.scalars(of_front).all()
    trials: Mapping[str, Trial] = {trial.id: trial for trial in front}
    goals = goals_of(sweep)
    baseline = baseline_of(session, sweep)
    try:
        choice = choose([candidate_of(trial) for trial in front], goals, wishes, baseline and baseline.nats)
    except NothingWithinError as nothing:
        raise _nothing_within(nothing) from None
    if choice is None:
        missing = "ended without a" if sweep.state in ENDED_SWEEPS else "does not yet have a"
        raise NoFeasibleTrialError(
            f"sweep {sweep.id} {missing} trial that is complete and feasible: there is none to recommend"
        )
    confirmed = confirmed_losses(session, sweep.id)
    noise = noise_of(session, sweep, choice.chosen, trials, confirmed)
    smaller, rows = overfitting.smaller_trials(session, sweep, choice, goals, noise, confirmed)
    trials = {**trials, **rows}
    taken = smaller.taken
    recommended = Recommended(
        sweep,
        wishes,
        goals,
        choice,
        taken,
        smaller.unconfirmed,
        noise,
        noise if taken is None else noise_of(session, sweep, taken.candidate, trials, confirmed),
        baseline,
        trials,
        is_confirmed=bool(confirmed.by_trial),
    )
    if not wishes:
        constraints = sweep.document.get("constraints", [])
        found_under = best_under_limits(
            recommended.candidate, choice, goals, constraints, noise, lambda each: leaderboards.to_row(trials[each.id])
        )
        recommended = replace(recommended, under_limits=found_under)
    if baseline is None:
        return recommended
    passed_over = None if choice.passed_over is None else trials[choice.passed_over.id]
    comparison = compare(session, baseline, choice, recommended.trial, goals, passed_over)
    return replace(recommended, comparison=comparison)


def recommend(session: Session, sweep: Sweep, wishes: SelectionPreferences | None = None) -> Recommendation:
    """The recommended trial and the rule. Raises NoFeasibleTrialError while there is none, UnprocessableError if
    none is within."""
    return decide(session, sweep, wishes or SelectionPreferences()).answer()


def recommended_trial(session: Session, sweep: Sweep, wishes: SelectionPreferences | None = None) -> str | None:
    """The id of the recommended trial; None while there is none. Raises UnprocessableError if none is within."""
    try:
        return recommend(session, sweep, wishes).trial.trial
    except NoFeasibleTrialError:
        return None


def ranked(session: Session, sweep: Sweep, count: int, wishes: SelectionPreferences | None = None) -> list[Trial]:
    """The recommended trial, the one that the rule alone would choose, and then those that the rule puts next."""
    found = decide(session, sweep, wishes or SelectionPreferences())
    order = dict.fromkeys([found.candidate.id, *(candidate.id for candidate in found.choice.kept)])
    return [found.trials[trial_id] for trial_id in list(order)[:count]]


def preferences_of(
    sweep: Sweep, *, prefer: Sequence[str] = (), within: Sequence[str] = (), weight: Sequence[str] = ()
) -> SelectionPreferences:
    """A query's values read for this sweep. Raises UnprocessableError."""
    metrics = MetricNames.of(sweep.document)
    return SelectionPreferences.parse(list(goals_of(sweep)), metrics, prefer=prefer, within=within, weight=weight)


def _nothing_within(nothing: NothingWithinError) -> UnprocessableError:
    closest = nothing.closest
    problems = [
        Problem(
            f"/within/{metric}",
            f"trial {closest.number}, the closest, has {formatting.metric(metric, closest.metrics.get(metric))}; "
            f"the limit is {formatting.metric(metric, limit)}",
            "widen the limit, or drop another one",
        )
        for metric, limit in nothing.limits.items()
    ]
    return UnprocessableError(f"{nothing}: widen a limit", problems=problems)
