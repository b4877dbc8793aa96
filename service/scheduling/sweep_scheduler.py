"""The scheduler of one sweep: its events are worked in one after the other, and each is followed by new asks.

What is asked depends only on the order of the events, never on when they are read; a sampler that learns nothing from
them is asked further ahead if they come quickly. Nothing is written here: `Changes` says what is to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from layers.space.document_fields import AUTO, Budget
from service.common.formatting import plural
from service.common.ids import new_id
from service.common.metrics import TELL_SECONDS
from service.common.states import SweepState, TrialState
from service.results.pareto import Ranking
from service.scheduling.device_model.gate import HardwareGate
from service.scheduling.device_model.gate_rows import BASE
from service.scheduling.grid import GridProgress
from service.scheduling.proposals import KnownPoint, Point, Proposal, Proposals, SearchSpace
from service.scheduling.replicates.replicates import KnownTrial, Replicates
from service.scheduling.requeues.requeues import Requeue, Requeues
from service.scheduling.reuse import Reused, Source, judge_source
from service.scheduling.studies import Attributes, Study, TrialResult
from service.scheduling.sweep_state import (
    AskedTrial,
    Changes,
    History,
    SweepEvent,
    SweepFacts,
    Termination,
    TrialRow,
    ask_row,
    queued_trial,
    result_of,
    result_of_event,
    resumption,
)
from service.sweeps.sampling import ASKED_WHEN_NEEDED, LEARNS_NOTHING

MAX_SECONDS = 1.0
"""What is left after this time is done in the next step: what was done is stored, and nobody does it again."""

MAX_LOOKAHEAD = 256
"""Trials ahead of need in a quick sweep whose sampler learns nothing from those that end between two steps."""

FindSources = Callable[[Collection[str]], Sequence[Source]]
"""The ended trials with one of these reuse keys."""


class SweepScheduler:
    """One sweep while it is led. Not thread-safe. After an error it is to be thrown away and built again."""

    def __init__(
        self,
        facts: SweepFacts,
        history: History,
        study: Study,
        ranking: Ranking,
        replicates: Replicates,
        gate: HardwareGate,
        attributes: Attributes,
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        """`progressed` is called again and again while a step works: one that calls it no more hangs."""
        self.facts = facts
        self._progressed = progressed
        self.read_sequence = history.scheduled_sequence
        """The last event that was looked at; the one that is stored may be earlier."""
        self.stored_sequence = history.scheduled_sequence
        self._history = history
        self._requeues = Requeues(history)
        self._study = study
        self._ranking = ranking
        self._replicates = replicates
        self._gate = gate
        self._has_stored_gate = gate.is_open or BASE in attributes
        document = facts.document
        self._stored_grid = GridProgress.of(attributes)
        self._proposals = Proposals(
            SearchSpace(document.space, document.starts, facts.target),
            study,
            history.known,
            seed=document.search["seed"],
            in_order=facts.sampler == "grid",
            grid=self._stored_grid,
            progressed=progressed,
            judge_hardware=gate.judge,
        )
        self._lookahead = 0 if facts.sampler in ASKED_WHEN_NEEDED else facts.lookahead

    @property
    def study(self) -> Study:
        return self._study

    @property
    def budget(self) -> Budget:
        return self._history.budget

    @property
    def shares_slots(self) -> bool:
        """Whether how many trials may run at once depends on the workers."""
        return self.budget["parallel"] == AUTO

    @property
    def batches(self) -> bool:
        """Whether steps may be a moment apart: what ends meanwhile changes no suggestion."""
        return self.facts.sampler in LEARNS_NOTHING

    def advance(
        self, events: Sequence[SweepEvent], sequence: int, *, going: bool, find_sources: FindSources
    ) -> Changes:
        """Work in what happened up to the event `sequence`. `going`: the sweep is active or paused, so ask for more."""
        changes = Changes(self.read_sequence)
        deadline = time.monotonic() + MAX_SECONDS
        self._look_ahead(events)
        resumes = resumption(events)
        if going and not resumes:
            self._top_up(changes, find_sources, deadline)
        for position, event in enumerate(events):
            is_late = time.monotonic() > deadline and not changes.is_empty
            if changes.is_full or changes.unfinished or changes.termination is not None or is_late:
                break
            self._progressed()
            self._apply_event(event, changes)
            changes.scheduled_sequence = event.sequence
            if going and position >= resumes:
                changes.termination = self._termination()
                self._top_up(changes, find_sources, deadline)
        else:
            changes.scheduled_sequence = sequence
        changes.unfinished |= changes.scheduled_sequence < sequence or changes.is_full
        if going and not changes.is_full and changes.termination is None:
            changes.termination = self._termination()
        self._take_attributes(changes)
        self.read_sequence = changes.scheduled_sequence
        return changes

    def end(self, reason: str) -> Termination:
        """How the sweep ends if `reason` lets nothing more be asked: it failed if every trial that ended did."""
        history = self._history
        if not history.failed or len(history.failed) < history.spent - len(history.outstanding):
            return Termination(SweepState.COMPLETED, reason)
        return self._failed(
            f"all {len(history.failed)} trials failed" if len(history.failed) > 1 else "its trial failed"
        )

    # --- what happened ------------------------------------------------------------------------------------------------

    def _apply_event(self, event: SweepEvent, changes: Changes) -> None:
        history = self._history
        if event.budget is not None:
            history.budget = event.budget
            self._requeues.note_extension()
        if event.parallel is not None:
            history.parallel = event.parallel
        if event.trial_id is None:
            return
        if event.promoted:
            self._requeues.note_promotion(event.trial_id)
            return
        if event.trial_id in self._replicates.outstanding:
            self._work_in_replicate(event, changes)
            return
        # A reused trial was told when it was made: its event finds it gone.
        tried = history.outstanding.pop(event.trial_id, None)
        if tried is None:
            return
        self._requeues.note_end(event, tried)
        result = result_of_event(self.facts.objectives, event)
        self._tell(tried, result, changes)
        if event.state in (TrialState.COMPLETE, TrialState.INFEASIBLE):
            self._gate.tell(event.trial_id, event.metrics)
        if event.state == TrialState.COMPLETE and event.feasible:
            self._rank(event.trial_id, result, changes)
            if result.values is not None:
                known = self._history.known[tried.point_hash]
                self._replicates.add(event.trial_id, KnownTrial(known.number, event.metrics, event.violations))

    def _work_in_replicate(self, event: SweepEvent, changes: Changes) -> None:
        trial_id, figures = self._replicates.tell(event)
        if figures is None:
            return
        changes.means.setdefault(trial_id, []).append(figures)
        values = self._replicates.values_of(trial_id) if figures.feasible else None
        self._note_ranks(self._ranking.replace(trial_id, values), changes)

    def _tell(self, tried: AskedTrial, result: TrialResult, changes: Changes) -> None:
        with TELL_SECONDS.time():
            self._study.tell(tried.ask, result)
        self._history.known[tried.point_hash].result = result
        self._record_result(tried.ask, result, changes)

    def _record_result(self, ask: int, result: TrialResult, changes: Changes) -> None:
        told, order = result.to_row(), self._history.results
        self._history.results += 1
        if ask in changes.asks:
            changes.asks[ask].update(state="told", told=told, told_order=order)
        else:
            changes.tells.append({"of_sweep": self.facts.id, "of_ask": ask, "told": told, "told_order": order})

    def _rank(self, trial_id: str, result: TrialResult, changes: Changes) -> None:
        if result.values is None or trial_id in self._ranking:
            return
        self._note_ranks(self._ranking.add(trial_id, result.values), changes)

    def _note_ranks(self, ranks: Mapping[str, int | None], changes: Changes) -> None:
        for ranked, rank in ranks.items():
            if ranked in changes.trials:
                changes.trials[ranked]["pareto_rank"] = rank
            else:
                changes.ranks[ranked] = rank

    def _termination(self) -> Termination | None:
        history = self._history
        if len(history.failed) >= history.budget["failures"]:
            return self._failed(f"{plural(len(history.failed), 'trial')} failed, the most that the budget allows")
        is_waiting = self._requeues.are_waiting(has_starts=self._proposals.has_starts)
        if history.outstanding or self._replicates.outstanding or is_waiting:
            return None
        if self._spent >= history.budget["trials"]:
            return self.end("budget_exhausted")
        if self._may_replicate() and self._replicates.next() is not None:
            return None
        exhausted = self._proposals.grid.exhausted and not history.cancelled
        return self.end("space_exhausted") if exhausted else None

    def _failed(self, what: str) -> Termination:
        last = self._history.last_failure
        return Termination(SweepState.FAILED, f"{what}; the last one: {last}" if last else what)

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _top_up(self, changes: Changes, find_sources: FindSources, deadline: float) -> None:
        if changes.termination is None and not changes.is_full:
            self._queue_again(self._requeues.take_promoted(self._free_slots()), changes)
        while changes.termination is None and not changes.is_full and (missing := self._missing()) > 0:
            missing -= self._resume(missing, changes)
            asked = self._ask_for(missing, changes, find_sources, deadline)
            if asked and self.facts.document.search["reuse"]:
                self._reuse(asked, changes, find_sources)
            if not asked or changes.unfinished:
                break
        if changes.termination is None and not changes.is_full and not changes.unfinished:
            self._retry(changes)
            self._replicate(changes)

    @property
    def _spent(self) -> int:
        return self._history.spent + self._replicates.asked

    def _may_replicate(self) -> bool:
        """Whether all points are asked for that leave further trainings their share of the budget."""
        remaining = self._history.budget["trials"] - self._spent
        share = self._replicates.share_left(self._history.budget["trials"])
        has_all = remaining <= share or (self._proposals.grid.exhausted and not self._history.cancelled)
        return has_all and min(remaining, share) > 0

    def _replicate(self, changes: Changes) -> None:
        """Train again what could be on the front, on the slots that no point takes. Nothing is asked ahead here."""
        while self._may_replicate() and self._free_slots() > self._lookahead:
            trial_id = self._replicates.next()
            if trial_id is None:
                break
            replicate_id, replicate = self._replicates.ask(trial_id)
            changes.replicates[replicate_id] = replicate

    def _ask_for(self, missing: int, changes: Changes, find_sources: FindSources, deadline: float) -> list[str]:
        """Ask for so many new trials; fewer if the step takes long, which changes no suggestion."""
        asked: list[str] = []
        for _ in range(missing):
            self._progressed()
            trial_id = self._propose(changes)
            if trial_id is not None:
                asked.append(trial_id)
            if self._proposals.grid.drawing:
                changes.unfinished = True
                break
            # A trial that ends at once teaches the sampler, but not before its neighbours were asked for.
            if asked and time.monotonic() > deadline and not self._sources_of(asked, changes, find_sources):
                changes.unfinished = True
                break
        return asked

    def _look_ahead(self, events: Sequence[SweepEvent]) -> None:
        """As far as trials end quickly, if that changes no suggestion: workers then wait for no step."""
        if self.batches:
            ended = sum(event.trial_id is not None for event in events)
            # Trials end in bursts: what was needed a moment ago is needed again, until it was not for a while.
            needed = max(2 * ended, self._lookahead * 7 // 8)
            self._lookahead = max(self.facts.lookahead, min(needed, MAX_LOOKAHEAD))

    def _missing(self) -> int:
        remaining = self._history.budget["trials"] - self._spent
        share = min(remaining, self._replicates.share_left(self._history.budget["trials"]))
        if remaining <= share and not self._in_flight and self._replicates.next() is None:
            # What further trainings need no more goes to new points.
            share = 0
        return min(self._free_slots(), remaining - share)

    @property
    def _in_flight(self) -> int:
        return len(self._history.outstanding) + len(self._replicates.outstanding)

    def _free_slots(self) -> int:
        return self._history.parallel + self._lookahead - self._in_flight

    def _resume(self, most: int, changes: Changes) -> int:
        """Try what the end of the sweep cut off before anything new, except the starts; returns how many."""
        if self._proposals.has_starts:
            return 0
        return self._queue_again(self._requeues.take_cut_off(most), changes)

    def _retry(self, changes: Changes) -> None:
        """Try what had failed before an extension once more, after all else that the space and the budget allow."""
        if self._missing() > 0 and (self._history.cancelled or not self._proposals.grid.exhausted):
            return
        if not self._proposals.has_starts:
            self._queue_again(self._requeues.take_failed(self._free_slots()), changes)

    def _queue_again(self, requeued: Sequence[Requeue], changes: Changes) -> int:
        """Queue ended trials again: for the sampler each is another ask of the same point. Returns how many."""
        for each in requeued:
            suggestion = self._proposals.ask_again(each.tried.chosen)
            changes.asks[suggestion.ask] = ask_row(self.facts.id, suggestion, None, each.trial_id)
            changes.requeued[each.trial_id] = each.state
            self._history.outstanding[each.trial_id] = replace(each.tried, ask=suggestion.ask)
        return len(requeued)

    def _propose(self, changes: Changes) -> str | None:
        """Ask until there is a new point, and make a trial of it; None if there is none left."""
        trial_id = None
        for proposal in self._proposals.next():
            row = ask_row(self.facts.id, proposal.suggestion, proposal.rejection, None)
            changes.asks[proposal.suggestion.ask] = row
            if proposal.result is not None:
                self._record_result(proposal.suggestion.ask, proposal.result, changes)
                changes.rejected += not proposal.is_repetition
            if proposal.point is not None:
                trial_id = row["trial_id"] = self._new_trial(proposal, proposal.point, changes)
        changes.rejected += self._proposals.passed
        self._proposals.passed = 0
        return trial_id

    def _new_trial(self, proposal: Proposal, point: Point, changes: Changes) -> str:
        history, trial_id, start = self._history, new_id(), proposal.started_from
        predicted = self._gate.predict(point) if start is None else None
        changes.trials[trial_id] = queued_trial(self.facts, trial_id, history.trials, point, start, predicted)
        self._gate.expect(trial_id, point)
        history.known[point.hash] = KnownPoint(history.trials)
        history.outstanding[trial_id] = AskedTrial(proposal.suggestion.ask, point.hash, point.chosen)
        history.trials += 1
        return trial_id

    def _reuse(self, trial_ids: Sequence[str], changes: Changes, find_sources: FindSources) -> None:
        """End the new trials that were measured before."""
        sources: dict[str, list[Source]] = {}
        for source in self._sources_of(trial_ids, changes, find_sources):
            sources.setdefault(source.reuse_key, []).append(source)
        for trial_id in trial_ids:
            row = changes.trials[trial_id]
            answers = (self._judge(source, row) for source in sources.get(row["reuse_key"], ()))
            reused = next((answer for answer in answers if answer is not None), None)
            if reused is not None:
                self._end_at_once(trial_id, reused, changes)

    def _sources_of(self, trial_ids: Sequence[str], changes: Changes, find_sources: FindSources) -> Sequence[Source]:
        if not self.facts.document.search["reuse"]:
            return ()
        return find_sources([changes.trials[trial_id]["reuse_key"] for trial_id in trial_ids])

    def _judge(self, source: Source, row: TrialRow) -> Reused | None:
        document = self.facts.document
        return judge_source(source, row["configuration"], document.objectives, document.constraints)

    def _end_at_once(self, trial_id: str, reused: Reused, changes: Changes) -> None:
        source = reused.source
        changes.reused[trial_id] = source.id
        changes.trials[trial_id].update(
            state=source.state,
            reused_from=source.origin,
            predicted=None,
            metrics=source.metrics,
            violations=reused.violations,
            feasible=reused.feasible,
            noise=source.noise,
            reason=reused.reason,
        )
        result = result_of(self.facts.objectives, source.state, source.metrics, reused.violations, reused.feasible)
        self._tell(self._history.outstanding.pop(trial_id), result, changes)
        self._gate.tell(trial_id, source.metrics)
        if source.state == TrialState.COMPLETE and reused.feasible:
            self._rank(trial_id, result, changes)
            if result.values is not None:
                number = changes.trials[trial_id]["number"]
                self._replicates.add(trial_id, KnownTrial(number, source.metrics, reused.violations))

    def _take_attributes(self, changes: Changes) -> None:
        changes.attributes = self._study.take_changed_attributes()
        if not self._has_stored_gate:
            changes.attributes[BASE], self._has_stored_gate = self._gate.base_ids, True
        grid = self._proposals.grid
        changes.attributes |= grid.changes_since(self._stored_grid)
        self._stored_grid = grid
