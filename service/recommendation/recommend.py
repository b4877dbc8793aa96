"""The recommended trial of a sweep: chosen from its rows, alone or with all that speaks for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.metrics import Goal
from service import catalog, formatting, leaderboards, result_schemas, sweep_schemas
from service.errors import NotFound, Problem, Unprocessable
from service.implications import implications, training_tokens
from service.judging import named_values
from service.models import Confirmation, Dataset, Measurement, Sweep, Trial, TrialMetric
from service.recommendation import complexity
from service.recommendation.certainty import Noise, certainty
from service.recommendation.choice import (
    LOSS,
    Candidate,
    Choice,
    NothingWithin,
    Smaller,
    choose,
    find_smaller,
    rule_in_words,
)
from service.recommendation.compatibility import compatibility
from service.recommendation.further_trainings import seed_spread
from service.recommendation.literature import literature
from service.recommendation.neighbours import neighbours
from service.recommendation.noise import BLOCKS_MEASUREMENT, Blocks, difference_error, sampling_error
from service.recommendation.schemas import Evidence, ExplainedRecommendation, Recommendation, SmallerTrial
from service.recommendation.slack import Setting, slacks
from service.recommendation.wishes import Wishes

MAX_SMALLER = 300
"""Smaller trials that are looked at, the smallest first."""

MAX_BROKEN = 500
"""Infeasible trials that are looked at for what a looser limit would buy, the newest first."""

MAX_POINTS = 1000
"""Trials in the picture of size against overfitting, the newest first."""

PART = "validation"


@dataclass(frozen=True, slots=True)
class Recommended:
    """What was chosen, and everything that the choice rests on."""

    sweep: Sweep
    wishes: Wishes
    goals: dict[str, Goal]
    choice: Choice
    smaller: Smaller | None
    noise: Noise
    trials: dict[str, Trial] = field(repr=False)
    """Every trial that was looked at, by id."""

    @property
    def candidate(self) -> Candidate:
        return self.choice.chosen if self.smaller is None else self.smaller.candidate

    @property
    def trial(self) -> Trial:
        return self.trials[self.candidate.id]

    def row(self, candidate: Candidate) -> result_schemas.LeaderboardRow:
        return leaderboards.to_row(self.trials[candidate.id])


def recommend(session: Session, sweep: Sweep, wishes: Wishes | None = None) -> Recommendation:
    """The recommended trial and the rule. Raises NotFound while there is none, Unprocessable where none is within."""
    return _answer(_choose(session, sweep, wishes or Wishes()))


def recommend_with_smaller(
    session: Session, sweep: Sweep, wishes: Wishes | None = None
) -> tuple[Recommendation, SmallerTrial | None]:
    """As `recommend`, with why a smaller trial is recommended in place of the one that the rule chose, where one is."""
    found = _choose(session, sweep, wishes or Wishes())
    return _answer(found), _smaller_in_words(found)


def detailed(session: Session, sweep: Sweep, wishes: Wishes | None = None) -> ExplainedRecommendation:
    """As `recommend`, with the evidence."""
    found = _choose(session, sweep, wishes or Wishes())
    chosen, goals, trial = found.candidate, found.goals, found.trial
    dataset = session.get(Dataset, sweep.dataset_id) if sweep.dataset_id else None
    complete, broken, starts = _others(session, sweep, found.trials)
    smaller = _smaller_in_words(found)
    setting = Setting(
        chosen=chosen,
        values=named_values(trial.configuration, trial.metrics),
        front=found.choice.front,
        broken=broken,
        goals=goals,
        wishes=found.wishes,
    )
    return ExplainedRecommendation(
        **_answer(found).__dict__,
        objectives=[sweep_schemas.Objective(**each) for each in sweep.objectives],
        prefer=list(found.wishes.prefer),
        within=[str(limit) for limit in found.wishes.within],
        weights=found.wishes.weights,
        smaller=smaller,
        neighbours=neighbours(chosen, found.choice.front, goals, found.row),
        certainty=certainty(found.choice.chosen, found.choice.front, goals, found.wishes, found.noise),
        evidence=Evidence(
            data=implications(
                dataset,
                {**trial.configuration, **{name: trial.metrics.get(name) for name in ("parameter_count", LOSS)}},
            ),
            constraints=slacks(list(sweep.document.get("constraints", [])), setting, found.row),
            complexity=complexity.complexity(
                chosen, trial.configuration, complete, list(goals), training_tokens(dataset), smaller
            ),
            literature=literature(chosen, trial.configuration, starts, goals, found.row),
            compatibility=compatibility(
                trial.configuration, sweep.target_key, _registered(session), _builds(session, sweep, trial)
            ),
        ),
    )


def ranked(session: Session, sweep: Sweep, count: int, wishes: Wishes | None = None) -> list[Trial]:
    """The recommended trial, the one that the rule alone would choose, and then those that the rule puts next."""
    found = _choose(session, sweep, wishes or Wishes())
    order = dict.fromkeys([found.candidate.id, *(candidate.id for candidate in found.choice.kept)])
    return [found.trials[trial_id] for trial_id in list(order)[:count]]


def goals_of(sweep: Sweep) -> dict[str, Goal]:
    """Objective -> goal, in the sweep's order."""
    return {each["metric"]: each["goal"] for each in sweep.objectives}


def wishes_of(
    sweep: Sweep, *, prefer: Sequence[str] = (), within: Sequence[str] = (), weight: Sequence[str] = ()
) -> Wishes:
    """A query's values read for this sweep. Raises Unprocessable."""
    return Wishes.parse(list(goals_of(sweep)), prefer=prefer, within=within, weight=weight)


def candidate_of(trial: Trial) -> Candidate:
    return Candidate(trial.id, trial.number, trial.metrics, trial.feasible is True, trial.violations or {})


def _choose(session: Session, sweep: Sweep, wishes: Wishes) -> Recommended:
    front = session.scalars(sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1)).all()
    trials = {trial.id: trial for trial in front}
    goals = goals_of(sweep)
    try:
        choice = choose([candidate_of(trial) for trial in front], goals, wishes)
    except NothingWithin as nothing:
        raise _nothing_within(nothing) from None
    if choice is None:
        missing = "ended without a" if sweep.state in leaderboards.ENDED_SWEEPS else "does not yet have a"
        raise NotFound(f"sweep {sweep.id} {missing} trial that is complete and feasible: there is none to recommend")
    noise = _noise(session, sweep.id, choice, trials)
    smaller = _find_smaller(session, sweep, choice, goals, noise, trials)
    return Recommended(sweep, wishes, goals, choice, smaller, noise, trials)


def _answer(found: Recommended) -> Recommendation:
    return Recommendation(
        sweep=found.sweep.id,
        rule=rule_in_words(found.wishes),
        trial=found.row(found.candidate),
        configuration=found.trial.configuration,
        final=found.sweep.state in leaderboards.ENDED_SWEEPS,
    )


def _nothing_within(nothing: NothingWithin) -> Unprocessable:
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
    return Unprocessable(f"{nothing}: widen a limit", problems=problems)


# --- noise ------------------------------------------------------------------------------------------------------------


def _noise(session: Session, sweep_id: str, choice: Choice, trials: Mapping[str, Trial]) -> Noise:
    chosen = choice.chosen
    first = dict(
        session.execute(
            sa.select(Measurement.trial_id, Measurement.data["latency_ms_p50"].as_float()).where(
                Measurement.name == "latency_first", Measurement.trial_id.in_(list(trials))
            )
        ).all()
    )
    rebuilt = {
        trial_id: trial.metrics["latency_ms_p50"] / first[trial_id] - 1
        for trial_id, trial in trials.items()
        if first.get(trial_id) and "latency_ms_p50" in trial.metrics
    }
    half_width = session.scalar(
        sa.select(Measurement.data[("environment", "median_half_width")].as_float()).where(
            Measurement.name == "latency_samples_ms", Measurement.trial_id == chosen.id
        )
    )
    blocks = _blocks(session, [chosen.id])
    spread, seeds = seed_spread(session, sweep_id)
    return Noise(
        seed_spread_nats=spread,
        seeds=seeds,
        latency_half_width_share=half_width,
        latency_rebuilt_share=rebuilt.get(chosen.id),
        front_rebuilt_shares=tuple(rebuilt.values()),
        sampling_error_nats=sampling_error(blocks.get(chosen.id)),
    )


def _blocks(session: Session, trial_ids: Collection[str]) -> dict[str, Blocks]:
    rows = session.execute(
        sa.select(Measurement.trial_id, Measurement.data).where(
            Measurement.name == BLOCKS_MEASUREMENT, Measurement.trial_id.in_(trial_ids)
        )
    )
    read = ((trial_id, Blocks.read(found.get(PART))) for trial_id, found in rows)
    return {trial_id: blocks for trial_id, blocks in read if blocks is not None}


# --- the overfitting rule ---------------------------------------------------------------------------------------------


def _find_smaller(
    session: Session,
    sweep: Sweep,
    choice: Choice,
    goals: Mapping[str, Goal],
    noise: Noise,
    trials: dict[str, Trial],
) -> Smaller | None:
    chosen = choice.chosen
    size, loss = chosen.value("parameter_count"), chosen.value(LOSS)
    own = _blocks(session, [chosen.id]).get(chosen.id)
    error = sampling_error(own)
    if not math.isfinite(size) or not math.isfinite(loss) or error is None:
        return None
    # Paired errors are below the sum of both; another trial's own error is about as large.
    # What is better by more than that is no smaller twin: the rule itself has weighed it against the chosen one.
    reach = 2 * error + 1.5 * (noise.seed_spread_nats or 0.0)
    smaller_ones = session.scalars(_smaller_alike(sweep, size, loss - reach, loss + reach)).all()
    blocks = _blocks(session, [trial.id for trial in smaller_ones])
    seeds = math.sqrt(2) * (noise.seed_spread_nats or 0.0)

    def error_of_difference(candidate: Candidate, other: Candidate) -> float | None:
        sampling = difference_error(blocks.get(candidate.id), own)
        return None if sampling is None else math.hypot(sampling, seeds)

    def tolerance(candidate: Candidate, other: Candidate, metric: str) -> float:
        return math.sqrt(2) * noise.deviation(metric, other.value(metric))

    found = find_smaller(choice, [candidate_of(trial) for trial in smaller_ones], goals, error_of_difference, tolerance)
    if found is not None:
        trials.update({trial.id: trial for trial in smaller_ones if trial.id == found.candidate.id})
    return found


def _smaller_alike(sweep: Sweep, size: float, least: float, most: float) -> sa.Select[Trial]:
    """Feasible complete trials below a size whose loss lies between two values, the smallest first."""
    # One after the other: the few losses by their index, then the sizes of those, then the rows.
    alike = sa.select(TrialMetric.trial_id).where(
        TrialMetric.sweep_id == sweep.id, TrialMetric.name == LOSS, TrialMetric.value.between(least, most)
    )
    sizes = (
        sa.select(TrialMetric.trial_id, TrialMetric.value)
        .where(TrialMetric.trial_id.in_(alike), TrialMetric.name == "parameter_count", TrialMetric.value < size)
        .cte("sizes")
    )
    return (
        sa.select(Trial)
        .join(sizes, sizes.c.trial_id == Trial.id)
        .where(Trial.state == "complete", Trial.feasible.is_(True))
        .order_by(sizes.c.value, Trial.number)
        .limit(MAX_SMALLER)
    )


def _smaller_in_words(found: Recommended) -> SmallerTrial | None:
    smaller = found.smaller
    if smaller is None:
        return None
    candidate, instead = smaller.candidate, smaller.instead_of
    saved = int(instead.value("parameter_count") - candidate.value("parameter_count"))
    difference, error = smaller.loss_difference_nats, smaller.standard_error_nats
    says = (
        f"trial {candidate.number} is recommended in place of trial {instead.number}, which the rule alone would "
        f"choose: with {formatting.count(saved)} parameters less ({saved / instead.value('parameter_count'):.0%}) its "
        f"validation loss is {difference:+.4f} nats, within one standard error of the difference ({error:.4f})"
    )
    return SmallerTrial(
        instead_of=found.row(instead),
        parameters_saved=saved,
        loss_difference_nats=difference,
        standard_error_nats=error,
        says=says,
    )


# --- the rest of the sweep --------------------------------------------------------------------------------------------


def _others(
    session: Session, sweep: Sweep, trials: dict[str, Trial]
) -> tuple[list[tuple[Candidate, bool]], list[Candidate], list[tuple[str, Candidate]]]:
    """The complete trials with whether each is on the front, the infeasible ones, and the starts."""

    def read(limit: int, *conditions: sa.ColumnElement[bool]) -> Sequence[Trial]:
        query = sa.select(Trial).where(Trial.sweep_id == sweep.id, *conditions)
        rows = session.scalars(query.order_by(Trial.number.desc()).limit(limit)).all()
        trials.update({row.id: row for row in rows})
        return rows

    complete = read(MAX_POINTS, Trial.state == "complete")
    broken = read(MAX_BROKEN, Trial.state.in_(("complete", "infeasible")), Trial.feasible.is_(False))
    starts = read(100, Trial.started_from.is_not(None))
    return (
        [(candidate_of(row), row.pareto_rank == 1) for row in complete],
        [candidate_of(row) for row in broken],
        [(row.started_from or "", candidate_of(row)) for row in reversed(starts)],
    )


def _builds(session: Session, sweep: Sweep, trial: Trial) -> dict[str, dict[str, Any]]:
    """What workers found when they built the trial's further trainings for other targets."""
    children = sa.select(Confirmation.sweep_id).where(Confirmation.confirms == sweep.id)
    rows = session.scalars(
        sa.select(Measurement.data)
        .join(Trial, Trial.id == Measurement.trial_id)
        .where(Measurement.name == "builds", Trial.sweep_id.in_(children), Trial.started_from == f"trial:{trial.id}")
        .order_by(Trial.id)
    )
    return {target: found for builds in rows for target, found in builds.items()}


def _registered(session: Session) -> list[dict[str, Any]]:
    return [{**target.capabilities, "key": target.key} for target in catalog.targets(session)]
