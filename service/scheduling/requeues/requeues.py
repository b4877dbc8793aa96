"""Which ended trials are tried again, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from service.common.states import TrialState
from service.scheduling.sweep_state import AskedTrial, History, SweepEvent


@dataclass(frozen=True, slots=True)
class Requeue:
    """A trial that is queued again, and the state in which it had ended."""

    trial_id: str
    tried: AskedTrial
    state: TrialState


class Requeues:
    """Those of one sweep. What it says depends on the order of the sweep's events alone."""

    def __init__(self, history: History) -> None:
        self._history = history

    def are_waiting(self, *, has_starts: bool) -> bool:
        """Whether the sweep is not at its end because of one. Those that its end cut off wait for an extension, those
        that failed for the starts."""
        return bool(self._history.to_promote or (self._history.to_retry and not has_starts))

    def note_end(self, event: SweepEvent, tried: AskedTrial) -> None:
        """A trial has ended."""
        assert event.trial_id is not None, "what ended is a trial"
        history = self._history
        match event.state:
            case TrialState.FAILED:
                history.failed[event.trial_id] = tried
                history.last_failure = event.reason
            case TrialState.CANCELLED:
                history.cancelled[event.trial_id] = tried
            case TrialState.PRUNED:
                history.pruned[event.trial_id] = tried
            case _:
                pass

    def note_extension(self) -> None:
        """The budget was extended: each trial that had failed is tried once more."""
        self._history.to_retry = set(self._history.failed)

    def note_promotion(self, trial_id: str) -> None:
        """A pruned trial is to be trained to its end."""
        if trial_id in self._history.pruned:
            self._history.to_promote.add(trial_id)

    def take_cut_off(self, most: int) -> list[Requeue]:
        """Of those that the end of the sweep cut off."""
        cancelled = self._history.cancelled
        taken = sorted(cancelled)[: max(most, 0)]
        return [Requeue(trial_id, cancelled.pop(trial_id), TrialState.CANCELLED) for trial_id in taken]

    def take_failed(self, most: int) -> list[Requeue]:
        """Of those that had failed before an extension."""
        history = self._history
        taken = sorted(history.to_retry)[: max(most, 0)]
        history.to_retry.difference_update(taken)
        return [Requeue(trial_id, history.failed.pop(trial_id), TrialState.FAILED) for trial_id in taken]

    def take_promoted(self, most: int) -> list[Requeue]:
        """Of those that a pruner had stopped and somebody wants trained to their ends."""
        history = self._history
        taken = sorted(history.to_promote)[: max(most, 0)]
        history.to_promote.difference_update(taken)
        return [Requeue(trial_id, history.pruned.pop(trial_id), TrialState.PRUNED) for trial_id in taken]
