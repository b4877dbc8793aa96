"""What the scheduler of a sweep works on: its facts and history, what happened in it, and what is to be written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from layers.configuration import Configuration
from layers.metrics import Goal
from layers.parameter import Scalar
from layers.space.document import SweepDocument
from layers.space.document_fields import Budget
from service.common.noise import StoredNoise
from service.common.states import SweepState, TrialState
from service.database.counts import REPLICATE
from service.database.json_columns import Distribution, PredictedHardware, RegisteredTarget, Told
from service.leases.reuse_keys import reuse_key
from service.leases.workers import results_version_of
from service.pruning.predictions import Prediction
from service.scheduling.proposals import KnownPoint, Point, total_violation
from service.scheduling.replicates.means import ERROR, LOSS, TRAININGS
from service.scheduling.studies import FAILED, Attributes, Suggestion, TrialResult

FEWEST_OF_AN_ERROR = 3
"""Trainings from which on a standard error says something: that of two is too small as often as not."""

MAX_ASKS = 1_000
"""Asks that are written in one transaction; more go into the next."""


@dataclass(frozen=True, slots=True)
class SweepEvent:
    """An event that the scheduler acts on: a trial ended, the budget was extended, or more or fewer may run at once."""

    sequence: int
    trial_id: str | None = None
    state: TrialState | None = None
    feasible: bool | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    violations: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None
    prediction: Prediction | None = None
    """Of a trial that was pruned: what it was expected to come to."""
    promoted: bool = False
    """A trial that a pruner had stopped is to be trained to its end."""
    budget: Budget | None = None
    parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Termination:
    """How a sweep ends."""

    state: SweepState
    reason: str


class AskRow(TypedDict):
    """A new row of `Ask`."""

    sweep_id: str
    ask: int
    trial_id: str | None
    state: str
    suggestions: dict[str, Scalar]
    distributions: dict[str, Distribution]
    system_attrs: Attributes
    told: Told | None
    told_order: int | None
    rejection: str | None


class TellRow(TypedDict):
    """What an ask that was stored before was told."""

    of_sweep: str
    of_ask: int
    told: Told
    told_order: int


class TrialRow(TypedDict):
    """A new row of `Trial`, but for its times."""

    id: str
    sweep_id: str
    project: str
    number: int
    state: TrialState
    parameters: dict[str, Scalar]
    configuration: Configuration
    point_hash: str
    reuse_key: str
    reused_from: str | None
    started_from: str | None
    predicted: PredictedHardware | None
    target_key: str
    max_attempts: int
    feasible: bool | None
    violations: dict[str, float] | None
    reason: str | None
    metrics: dict[str, float]
    noise: StoredNoise | None
    pareto_rank: int | None


class TimedTrialRow(TrialRow):
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class NewReplicate:
    """One more training of a trial."""

    of_trial: str
    number: int
    earlier: int
    """Further seeds that the trial was trained with before."""


@dataclass(frozen=True, slots=True)
class MeanFigures:
    """A trial's figures, once another training of it has ended."""

    number: int
    metrics: dict[str, float]
    violations: dict[str, float]
    feasible: bool


@dataclass(slots=True)
class Changes:
    """What one step of a sweep writes. Times are the writer's."""

    scheduled_sequence: int
    asks: dict[int, AskRow] = field(default_factory=dict[int, AskRow])
    tells: list[TellRow] = field(default_factory=list[TellRow])
    trials: dict[str, TrialRow] = field(default_factory=dict[str, TrialRow])
    reused: dict[str, str] = field(default_factory=dict[str, str])
    """New trial -> the trial whose measurements it gets."""
    requeued: dict[str, TrialState] = field(default_factory=dict[str, TrialState])
    """Trial that goes back to the queue -> the state in which it had ended."""
    ranks: dict[str, int | None] = field(default_factory=dict[str, int | None])
    replicates: dict[str, NewReplicate] = field(default_factory=dict[str, NewReplicate])
    means: dict[str, list[MeanFigures]] = field(default_factory=dict[str, list[MeanFigures]])
    """Trial -> its figures after each further training that was worked in."""
    attributes: Attributes = field(default_factory=Attributes)
    rejected: int = 0
    termination: Termination | None = None
    unfinished: bool = False
    """There is more to do at once."""

    @property
    def is_empty(self) -> bool:
        """True if only the position among the events changed."""
        asked = self.asks or self.tells or self.rejected or self.replicates
        return not (asked or self.means or self.ranks or self.attributes or self.termination)

    @property
    def event_count(self) -> int:
        """Events that tell of these changes, if the sweep goes on."""
        return len(self.trials) + len(self.replicates) + sum(map(len, self.means.values()))

    @property
    def is_full(self) -> bool:
        return len(self.asks) >= MAX_ASKS

    def counts(self) -> Counter[str]:
        """How many more trials there are in each state, and of those that are reused."""
        counts: Counter[str] = Counter(trial["state"] for trial in self.trials.values())
        if self.replicates:
            counts[f"{REPLICATE}{TrialState.QUEUED}"] = len(self.replicates)
        if self.reused:
            counts["reused"] = len(self.reused)
        if self.requeued:
            counts[TrialState.QUEUED] += len(self.requeued)
            counts.subtract(self.requeued.values())
        return counts


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """What of a sweep never changes once its target is known."""

    id: str
    project: str
    document: SweepDocument
    sampler: str
    pruner: str
    target: RegisteredTarget
    dataset_sha256: str | None
    max_attempts: int
    lookahead: int

    @property
    def objectives(self) -> list[str]:
        """Their metrics, in order."""
        return [objective["metric"] for objective in self.document.objectives]

    @property
    def goals(self) -> list[Goal]:
        return ["maximize" if objective["goal"] == "maximize" else "minimize" for objective in self.document.objectives]


def ask_row(sweep_id: str, suggestion: Suggestion, rejection: str | None, trial_id: str | None) -> AskRow:
    """The row of an ask that was not told yet."""
    return {
        "sweep_id": sweep_id,
        "ask": suggestion.ask,
        "trial_id": trial_id,
        "state": "asked",
        "suggestions": suggestion.suggestions,
        "distributions": suggestion.distributions,
        "system_attrs": suggestion.system_attrs,
        "told": None,
        "told_order": None,
        "rejection": rejection,
    }


def queued_trial(
    facts: SweepFacts,
    trial_id: str,
    number: int,
    point: Point,
    started_from: str | None,
    predicted: PredictedHardware | None,
) -> TrialRow:
    """The row of a new trial."""
    target_key = facts.target["key"]
    return {
        "id": trial_id,
        "sweep_id": facts.id,
        "project": facts.project,
        "number": number,
        "state": TrialState.QUEUED,
        "parameters": point.shown,
        "configuration": point.configuration,
        "point_hash": point.hash,
        "reuse_key": reuse_key(
            project=facts.project,
            configuration=point.configuration,
            dataset_sha256=facts.dataset_sha256,
            target_key=target_key,
            results_version=results_version_of(facts.target),
        ),
        "reused_from": None,
        "started_from": started_from,
        "predicted": predicted,
        "target_key": target_key,
        "max_attempts": facts.max_attempts,
        "feasible": None,
        "violations": None,
        "reason": None,
        "metrics": point.static_metrics(),
        "noise": None,
        "pareto_rank": None,
    }


def result_of_event(objectives: Sequence[str], event: SweepEvent) -> TrialResult:
    """What a sampler learns of a trial that an event says has ended."""
    return result_of(objectives, event.state, event.metrics, event.violations, event.feasible, event.prediction)


def result_of(
    objectives: Sequence[str],
    state: TrialState | None,
    metrics: Mapping[str, float],
    violations: Mapping[str, float],
    feasible: bool | None,
    prediction: Prediction | None = None,
) -> TrialResult:
    """What a sampler learns of a trial that ended so. `objectives`: their metrics, in order.

    A complete trial that cannot be judged lies on its limits: what it breaks by its figures may be kept.
    """
    violation = total_violation(violations.values())
    if state == TrialState.COMPLETE:
        if feasible is None:
            violation = min(violation, 0.0)
        values = _values(objectives, metrics)
        spread = _error_of_mean(objectives, metrics)
        return FAILED if values is None else TrialResult(TrialState.COMPLETE, values, violation, spread)
    if state == TrialState.INFEASIBLE:
        return TrialResult(TrialState.INFEASIBLE, None, violation if violation > 0 else 1.0)
    if state != TrialState.PRUNED:
        return FAILED
    if prediction is None:
        return TrialResult(TrialState.PRUNED, None, violation)
    return TrialResult(TrialState.PRUNED, _values(objectives, prediction.values), violation, prediction.spread)


def _error_of_mean(objectives: Sequence[str], metrics: Mapping[str, float]) -> float | None:
    """The standard error of a loss that is a mean, as of a trial that is reused; None of too few trainings."""
    if LOSS not in objectives or metrics.get(TRAININGS, 1) < FEWEST_OF_AN_ERROR or metrics.get(ERROR, 0.0) <= 0:
        return None
    return metrics[ERROR]


def _values(objectives: Sequence[str], metrics: Mapping[str, float]) -> tuple[float, ...] | None:
    """The objectives' values; None if one is missing or not finite."""
    values = tuple(float(metrics.get(metric, math.nan)) for metric in objectives)
    return values if all(map(math.isfinite, values)) else None


@dataclass(frozen=True, slots=True)
class AskedTrial:
    """A trial's last ask, and its point."""

    ask: int
    point_hash: str
    chosen: dict[str, Scalar]


def resumption(events: Sequence[SweepEvent]) -> int:
    """The position from which on a sweep that is going may ask and end.

    A trial is cancelled only when its sweep ends: from then on nothing was asked until the budget was extended.
    """
    last = max((at for at, event in enumerate(events) if event.state == TrialState.CANCELLED), default=None)
    if last is None:
        return 0
    after = range(last + 1, len(events))
    return next((at for at in after if events[at].budget is not None), len(events))


def _no_trials() -> dict[str, AskedTrial]:
    return {}


@dataclass(slots=True)
class History:
    """What is known of the trials at some event of the sweep: the state that its scheduler goes on from.

    Trials by id are in the order in which they were made; so are those that are tried again.
    """

    scheduled_sequence: int
    budget: Budget
    parallel: int
    """How many trials may run at once."""
    outstanding: dict[str, AskedTrial] = field(default_factory=_no_trials)
    """In flight."""
    cancelled: dict[str, AskedTrial] = field(default_factory=_no_trials)
    """Ended by the end of the sweep, not by themselves: they cost no budget, and are the first to be tried again."""
    failed: dict[str, AskedTrial] = field(default_factory=_no_trials)
    to_retry: set[str] = field(default_factory=set[str])
    """Those of `failed` that had failed when the budget was last extended: each is tried once more."""
    pruned: dict[str, AskedTrial] = field(default_factory=_no_trials)
    to_promote: set[str] = field(default_factory=set[str])
    """Those of `pruned` that are to be trained to their ends."""
    known: dict[str, KnownPoint] = field(default_factory=dict[str, KnownPoint])
    trials: int = 0
    results: int = 0
    """How many asks the sampler was told the result of."""
    last_failure: str | None = None

    @property
    def spent(self) -> int:
        """The trials that count against the budget: one that is tried again counts once."""
        return self.trials - len(self.cancelled)
