"""What the scheduler of a sweep works on: its facts and history, what happened in it, and what is to be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from layers.configuration import Configuration
from layers.metrics import Goal
from layers.parameter import Scalar
from layers.space.document import SweepDocument
from layers.space.document_fields import Budget
from service.common.states import SweepState, TrialState
from service.database.json_columns import Distribution, RegisteredTarget, Told
from service.scheduling.proposals import KnownPoint
from service.scheduling.studies import Attributes

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
    target_key: str
    max_attempts: int
    feasible: bool | None
    violations: dict[str, float] | None
    reason: str | None
    metrics: dict[str, float]
    pareto_rank: int | None


class TimedTrialRow(TrialRow):
    created_at: float
    started_at: float | None
    ended_at: float | None


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
    ranks: dict[str, int] = field(default_factory=dict[str, int])
    attributes: Attributes = field(default_factory=Attributes)
    rejected: int = 0
    termination: Termination | None = None
    unfinished: bool = False
    """There is more to do at once."""

    @property
    def is_empty(self) -> bool:
        """True where only the position among the events changed."""
        return not (self.asks or self.tells or self.ranks or self.attributes or self.rejected or self.termination)

    @property
    def is_full(self) -> bool:
        return len(self.asks) >= MAX_ASKS

    def counts(self) -> Counter[str]:
        """How many more trials there are in each state, and of those that are reused."""
        counts: Counter[str] = Counter(trial["state"] for trial in self.trials.values())
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
    target: RegisteredTarget
    dataset_sha256: str | None
    max_attempts: int
    lookahead: int

    @property
    def goals(self) -> list[Goal]:
        return ["maximize" if objective["goal"] == "maximize" else "minimize" for objective in self.document.objectives]


@dataclass(frozen=True, slots=True)
class AskedTrial:
    """A trial's last ask, and its point."""

    ask: int
    point_hash: str
    chosen: dict[str, Scalar]


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
    known: dict[str, KnownPoint] = field(default_factory=dict[str, KnownPoint])
    trials: int = 0
    results: int = 0
    """How many asks the sampler was told the result of."""
    last_failure: str | None = None

    @property
    def spent(self) -> int:
        """The trials that count against the budget: one that is tried again counts once."""
        return self.trials - len(self.cancelled)
