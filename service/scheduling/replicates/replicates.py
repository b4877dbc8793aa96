"""The further trainings of one sweep while it is led: who gets one next, and what its result makes of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from layers.space.document import SweepDocument
from layers.space.document_fields import AUTO
from layers.space.replicates import most_of, replicates_lack
from service.common.ids import new_id
from service.leases.feasibility import violations_by_metrics
from service.scheduling.replicates.means import LOSS, squares_of, trainings_of, with_training
from service.scheduling.replicates.race import Contender, Race
from service.scheduling.sweep_state import MeanFigures, NewReplicate, SweepEvent

AUTO_MOST = 4
"""Further trainings of one trial if the document leaves it to `auto`."""
FEWEST_TRIALS = 20
"""Of the budget, below which `auto` trains nothing again: that share of less decides nothing."""


@dataclass(frozen=True, slots=True)
class KnownTrial:
    """A complete feasible trial's figures."""

    number: int
    metrics: Mapping[str, float]
    violations: Mapping[str, float]


@dataclass(slots=True)
class ReplicateHistory:
    """What is known of further trainings at some event of the sweep."""

    trials: dict[str, KnownTrial] = field(default_factory=dict[str, KnownTrial])
    outstanding: dict[str, str] = field(default_factory=dict[str, str])
    """Replicate in flight -> the trial that it trains again."""
    asked: dict[str, int] = field(default_factory=dict[str, int])
    """Trial -> its further trainings so far, but for those that the end of the sweep cut off."""
    numbered: int = 0
    """Replicates so far, all of them."""

    def values_of(self, trial_id: str, objectives: Sequence[str]) -> tuple[float, ...]:
        """A trial's objectives, in order."""
        metrics = self.trials[trial_id].metrics
        return tuple(float(metrics[metric]) for metric in objectives)


def most_replicates(document: SweepDocument, sampler: str) -> int:
    """How often one trial of the sweep may be trained again; 0: the sweep trains everything once."""
    requested = document.search.get("replicates", 0)
    if requested != AUTO:
        return requested
    open_parameters = [parameter.name for parameter in document.space.open]
    named = [objective["metric"] for objective in document.objectives]
    lack = replicates_lack(document.task, named, open_parameters)
    decides = lack is None and sampler != "grid" and document.budget["trials"] >= FEWEST_TRIALS
    return AUTO_MOST if decides else 0


class Replicates:
    """Further trainings, asked and told. What is next depends on what was told, in its order."""

    def __init__(self, document: SweepDocument, sampler: str, history: ReplicateHistory) -> None:
        self._most = most_replicates(document, sampler)
        self._history = history
        self._constraints = [constraint.text for constraint in document.constraints]
        self._objectives = [objective["metric"] for objective in document.objectives]
        self._signs = [-1.0 if objective["goal"] == "maximize" else 1.0 for objective in document.objectives]
        self._contenders: dict[str, Contender] = {}
        self._race = Race(self._objectives.index(LOSS), self._most) if self._most else None
        for trial_id in history.trials:
            self._enter(trial_id)

    @property
    def asked(self) -> int:
        """How many count against the budget."""
        return sum(self._history.asked.values())

    @property
    def outstanding(self) -> Mapping[str, str]:
        """Replicate in flight -> the trial that it trains again."""
        return self._history.outstanding

    def share_left(self, trials: int) -> int:
        """Further trainings that a budget of so many trials still has room for."""
        return max(0, most_of(trials) - self.asked) if self._race is not None else 0

    def add(self, trial_id: str, trial: KnownTrial) -> None:
        """Take part with a trial that is complete and feasible."""
        if self._race is not None:
            self._history.trials[trial_id] = trial
            self._enter(trial_id)

    def next(self) -> str | None:
        """The trial that is to be trained again; None if that would decide nothing."""
        return None if self._race is None else self._race.next(self._contenders)

    def ask(self, trial_id: str) -> tuple[str, NewReplicate]:
        """Train the trial again: the new replicate, by its id."""
        history, trial = self._history, self._history.trials[trial_id]
        earlier = max(history.asked.get(trial_id, 0), trainings_of(trial.metrics) - 1)
        replicate = NewReplicate(trial_id, -1 - history.numbered, earlier)
        replicate_id = new_id()
        history.numbered += 1
        history.asked[trial_id] = history.asked.get(trial_id, 0) + 1
        history.outstanding[replicate_id] = trial_id
        self._enter(trial_id)
        return replicate_id, replicate

    def tell(self, event: SweepEvent) -> tuple[str, MeanFigures | None]:
        """Work in how a replicate ended: the trial that it trained again, with its figures if they are new ones."""
        assert event.trial_id is not None
        history = self._history
        trial_id = history.outstanding.pop(event.trial_id)
        trial = history.trials.get(trial_id)
        if event.state == "cancelled":
            history.asked[trial_id] -= 1
        if trial is None:
            return trial_id, None
        found = None
        if event.state == "complete" and math.isfinite(event.metrics.get(LOSS, math.nan)):
            found = self._work_in(trial_id, trial, event.metrics)
        if trial_id in history.trials:
            self._enter(trial_id)
        return trial_id, found

    def values_of(self, trial_id: str) -> tuple[float, ...]:
        """A trial's objectives, in order."""
        return self._history.values_of(trial_id, self._objectives)

    def _work_in(self, trial_id: str, trial: KnownTrial, further: Mapping[str, float]) -> MeanFigures:
        metrics = with_training(trial.metrics, further)
        # Of a constraint on parameters nothing changes: a configuration's are the same at each training.
        violations = {**trial.violations, **violations_by_metrics(self._constraints, metrics)}
        feasible = all(violation <= 0 for violation in violations.values())
        if feasible:
            self._history.trials[trial_id] = replace(trial, metrics=metrics, violations=violations)
        else:
            del self._history.trials[trial_id], self._contenders[trial_id]
        return MeanFigures(trial.number, metrics, violations, feasible)

    def _enter(self, trial_id: str) -> None:
        if self._race is None:
            return
        trial = self._history.trials[trial_id]
        costs = tuple(
            sign * float(trial.metrics[name]) for sign, name in zip(self._signs, self._objectives, strict=True)
        )
        self._contenders[trial_id] = Contender(
            trial.number,
            costs,
            trainings_of(trial.metrics),
            squares_of(trial.metrics),
            awaited=list(self._history.outstanding.values()).count(trial_id),
            asked=self._history.asked.get(trial_id, 0),
        )
