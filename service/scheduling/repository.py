"""What the scheduler reads and writes: a sweep's history, what happened since, and the changes that follow, fenced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.space.document import Start, SweepDocument, parse_document
from service.common.notifications import sweep_topic
from service.common.states import GOING_SWEEPS, SweepState, TrialState
from service.database import counts
from service.database.json_columns import (
    EventData,
    RegisteredTarget,
    SlotsShared,
    SweepExtended,
    SweepTargeted,
    TrialEnded,
    TrialQueued,
)
from service.database.models import IS_SEARCH, Ask, Dataset, Event, StudyAttribute, Sweep, Trial, TrialMetric
from service.database.sessions import UNSYNCHRONIZED, announce, now, now_sql
from service.events import events
from service.leases.queue import cancel_open, reopen
from service.pruning.predictions import predictions_of
from service.scheduling import reuse
from service.scheduling.leadership import StaleLeaderError, may_lead
from service.scheduling.proposals import KnownPoint
from service.scheduling.replicates import rows as replicate_rows
from service.scheduling.replicates.replicates import ReplicateHistory
from service.scheduling.requeues import rows as requeue_rows
from service.scheduling.studies import Attributes, PastAsk, TrialResult
from service.scheduling.sweep_state import AskedTrial, Changes, History, SweepEvent, SweepFacts, TimedTrialRow, TrialRow
from service.sweeps import budgets, drafts, slot_shares, sweeps, targets

EVENTS_AT_ONCE = 500

_SWEEPS, _TRIALS, _ASKS = (cast("sa.Table", model.__table__) for model in (Sweep, Trial, Ask))

# Statements that run for every trial are built once: building them takes longer than running them.
_CANDIDATES = (
    sa.select(Sweep.id, Sweep.event_counter, *budgets.LIMITED, now_sql())
    .where(
        sa.or_(Sweep.state.in_(GOING_SWEEPS), Sweep.scheduled_sequence < Sweep.event_counter),
        IS_SEARCH,
        may_lead(sa.bindparam("leader", type_=sa.String)),
    )
    .order_by(Sweep.id)
)
_SWEEP_NOW = sa.select(Sweep.event_counter, *budgets.LIMITED, now_sql()).where(Sweep.id == sa.bindparam("sweep_id"))
_EVENTS_SINCE = (
    sa.select(
        Event.sequence,
        Event.kind,
        Event.data,
        Event.trial_id,
        Trial.feasible,
        Trial.metrics,
        Trial.violations,
        Trial.reason,
    )
    .join(Trial, Trial.id == Event.trial_id, isouter=True)
    .where(
        Event.sweep_id == sa.bindparam("sweep_id"),
        Event.sequence > sa.bindparam("after"),
        Event.sequence <= sa.bindparam("until"),
        Event.kind.in_(("trial.ended", "trial.promoted", "sweep.extended", slot_shares.CHANGED)),
    )
    .order_by(Event.sequence)
    .limit(EVENTS_AT_ONCE)
)
_FENCE = (
    sa.update(_SWEEPS)
    .where(
        _SWEEPS.c.id == sa.bindparam("sweep_id"),
        _SWEEPS.c.leader_epoch == sa.bindparam("epoch"),
        _SWEEPS.c.scheduled_sequence == sa.bindparam("stored_sequence"),
        _SWEEPS.c.state.in_(sa.bindparam("states", expanding=True)),
    )
    .values(
        scheduled_sequence=sa.bindparam("scheduled"),
        rejected_count=_SWEEPS.c.rejected_count + sa.bindparam("rejected", type_=sa.Integer),
    )
    .returning(_SWEEPS.c.event_counter)
)
_RANK = sa.update(_TRIALS).where(_TRIALS.c.id == sa.bindparam("trial")).values(pareto_rank=sa.bindparam("rank"))
_TELL = (
    sa.update(_ASKS)
    .where(_ASKS.c.sweep_id == sa.bindparam("of_sweep"), _ASKS.c.ask == sa.bindparam("of_ask"))
    .values(state="told", told=sa.bindparam("told"), told_order=sa.bindparam("told_order"))
)
_ADD_TRIALS = sa.insert(_TRIALS)
_ADD_ASKS = sa.insert(_ASKS)
_ADD_METRICS = sa.insert(cast("sa.Table", TrialMetric.__table__))


@dataclass(frozen=True, slots=True)
class SchedulableSweep:
    """A sweep that may need the scheduler."""

    id: str
    event_counter: int
    overdue: bool
    """It has used up a budget of time."""


@dataclass(frozen=True, slots=True)
class SweepUpdate:
    """What happened in a sweep after some event, up to the event `sequence`."""

    state: str
    sequence: int
    events: Sequence[SweepEvent]
    used_up: str | None
    """The budget of time that it has used up: `wall_seconds` or `device_seconds`."""


@dataclass(frozen=True, slots=True)
class StoredSweep:
    """Everything that the scheduler of a sweep is built from."""

    facts: SweepFacts
    history: History
    past: Sequence[PastAsk]
    attributes: Attributes
    replicates: ReplicateHistory
    ranked: Sequence[tuple[str, tuple[float, ...]]]
    """The feasible complete trials with the values of their objectives, in the order in which they were told."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A sweep without a target, and the targets of the workers that are alive."""

    going: bool
    offered: list[RegisteredTarget]


def schedulable(session: Session, leader_id: str) -> list[SchedulableSweep]:
    """The sweeps that are going, and those that ended with events that were not worked in; of these the ones that this
    leader may lead."""
    rows = session.connection().execute(_CANDIDATES, {"leader": leader_id})
    return [
        SchedulableSweep(sweep_id, counter, budgets.time_used_up(state, started_at, taken, budget, time) is not None)
        for sweep_id, counter, state, started_at, taken, budget, time in rows
    ]


def read_update(session: Session, sweep_id: str, after: int) -> SweepUpdate | None:
    """What happened in the sweep after the event `after`; None if the sweep is gone."""
    row = session.connection().execute(_SWEEP_NOW, {"sweep_id": sweep_id}).one_or_none()
    if row is None:
        return None
    sequence, state, started_at, taken, budget, time = row
    found = session.connection().execute(_EVENTS_SINCE, {"sweep_id": sweep_id, "after": after, "until": sequence}).all()
    new = [_sweep_event(*columns) for columns in found]
    expected = predictions_of(session, [event.trial_id or "" for event in new if event.state == TrialState.PRUNED])
    new = [replace(event, prediction=expected.get(event.trial_id or "")) for event in new]
    if len(new) == EVENTS_AT_ONCE:
        sequence = new[-1].sequence
    return SweepUpdate(state, sequence, new, budgets.time_used_up(state, started_at, taken, budget, time))


def parse_stored(session: Session, sweep: Sweep) -> SweepDocument:
    """The sweep's document again. Its starts are those found at validation: the trials that they name may be gone."""
    dataset = None if sweep.dataset_id is None else session.get(Dataset, sweep.dataset_id)
    document = {name: value for name, value in sweep.document.items() if name != "start_from"}
    parsed = parse_document(document, find_dataset=lambda name: None if dataset is None else drafts.described(dataset))
    starts = tuple(Start(start["name"], start["chosen"]) for start in sweep.space.get("starts", ()))
    return replace(parsed, starts=starts)


def load(session: Session, sweep_id: str, *, max_attempts: int, lookahead: int) -> StoredSweep:
    """Read everything of a sweep that has a target."""
    sweep = session.get_one(Sweep, sweep_id)
    dataset = None if sweep.dataset_id is None else session.get(Dataset, sweep.dataset_id)
    assert sweep.target is not None, "a sweep without a target has nothing to schedule"
    facts = SweepFacts(
        id=sweep.id,
        project=sweep.project,
        document=parse_stored(session, sweep),
        sampler=sweep.sampler,
        pruner=sweep.pruner,
        target=sweep.target,
        dataset_sha256=None if dataset is None else dataset.sha256,
        max_attempts=max_attempts,
        lookahead=lookahead,
    )
    budget = requeue_rows.budget_of(session, sweep, facts.document)
    history = History(sweep.scheduled_sequence, budget, slot_shares.as_of_scheduled(session, sweep))
    past, told = _replay_asks(session, facts, history)
    replicates, ranked = replicate_rows.load(session, sweep, facts, told)
    requeue_rows.load(session, sweep, history)
    attributes = session.execute(
        sa.select(StudyAttribute.name, StudyAttribute.value).where(StudyAttribute.sweep_id == sweep_id)
    )
    return StoredSweep(
        facts=facts,
        history=history,
        past=past,
        attributes={name: value["value"] for name, value in attributes},
        replicates=replicates,
        ranked=ranked,
    )


def store(session: Session, sweep_id: str, epoch: int, stored_sequence: int, changes: Changes) -> int:
    """Write the changes and return the sequence of the newest event.

    Raises StaleLeaderError, and nothing is written, if another leader came, the sweep has moved on, or it has ended
    while more trials were to be added. The sweep is locked first, as `service.leases.row_locks` says.
    """
    connection = session.connection()
    must_go_on = bool(changes.trials or changes.requeued or changes.replicates or changes.termination is not None)
    fenced = {
        "sweep_id": sweep_id,
        "epoch": epoch,
        "stored_sequence": stored_sequence,
        "scheduled": changes.scheduled_sequence,
        "rejected": changes.rejected,
        "states": GOING_SWEEPS if must_go_on else tuple(SweepState),
    }
    newest = connection.scalar(_FENCE, fenced)
    if newest is None:
        raise StaleLeaderError(sweep_id)
    requeued = reopen(session, list(changes.requeued))
    _store_ranks(session, sweep_id, changes.ranks)
    if changes.termination is not None:
        cancel_open(session, sweep_id, f"the sweep is {changes.termination.state}")
    _insert_trials(session, changes)
    if changes.asks:
        connection.execute(_ADD_ASKS, list(changes.asks.values()))
    if changes.tells:
        connection.execute(_TELL, changes.tells)
    for name, value in changes.attributes.items():
        session.merge(StudyAttribute(sweep_id=sweep_id, name=name, value={"value": value}))
    new = [_new_trial(trial_id, row) for trial_id, row in changes.trials.items()]
    new += [events.NewEvent("trial.queued", trial_id, {"number": number}) for trial_id, number in requeued.items()]
    new += replicate_rows.store(session, changes)
    if new:
        counts.add(session, sweep_id, changes.counts())
        newest = events.append_all(session, sweep_id, new)
    if changes.termination is not None:
        newest = sweeps.end(session, sweep_id, changes.termination.state, changes.termination.reason)
    return newest


def find_target(session: Session, sweep_id: str, alive_seconds: float) -> Unresolved | None:
    """What the target of a sweep can be chosen from; None if it has one. Raises StaleLeaderError if the sweep is
    gone."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        raise StaleLeaderError(sweep_id)
    if sweep.target_key is not None:
        return None
    return Unresolved(sweep.state in GOING_SWEEPS, targets.offered(session, alive_seconds, sweep))


def store_target(session: Session, sweep_id: str, epoch: int, resolution: targets.Resolution) -> bool:
    """Give the sweep its target, or say what it waits for. False if it has none now: it may have ended meanwhile."""
    target = resolution.target
    # A paused sweep keeps its reason.
    reason = sa.case((Sweep.state == SweepState.ACTIVE, sa.literal(resolution.waits_for, sa.Text)), else_=Sweep.reason)
    chosen = {} if target is None else targets.columns(target)
    stored = session.scalar(
        sa.update(Sweep)
        .where(
            Sweep.id == sweep_id, Sweep.leader_epoch == epoch, Sweep.target_key.is_(None), Sweep.state.in_(GOING_SWEEPS)
        )
        .where(sa.true() if target is not None else Sweep.reason.is_distinct_from(resolution.waits_for))
        .values(reason=reason, **chosen)
        .returning(Sweep.id)
        .execution_options(**UNSYNCHRONIZED)
    )
    if stored is not None:
        data: SweepTargeted = {"target": target and target["key"], "waits_for": resolution.waits_for}
        events.append(session, sweep_id, "sweep.target", data=data)
    return stored is not None and target is not None


def skip_events(session: Session, sweep_id: str, epoch: int) -> None:
    """Count every event of a sweep as worked in: it ended before it had a target."""
    session.execute(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, Sweep.leader_epoch == epoch, Sweep.state.not_in(GOING_SWEEPS))
        .values(scheduled_sequence=Sweep.event_counter),
        execution_options=UNSYNCHRONIZED,
    )


def _replay_asks(
    session: Session, facts: SweepFacts, history: History
) -> tuple[list[PastAsk], list[tuple[str, tuple[float, ...]]]]:
    """Bring an empty history to the last ask; return the asks, and the ranked trials as `StoredSweep` has them."""
    past: list[PastAsk] = []
    ranked: list[tuple[int, str, tuple[float, ...]]] = []
    names = frozenset(parameter.name for parameter in facts.document.space.open)
    rows = session.execute(
        sa.select(Ask, Trial.number, Trial.point_hash, Trial.parameters, Trial.state, Trial.feasible, Trial.reason)
        .join(Trial, Trial.id == Ask.trial_id, isouter=True)
        .where(Ask.sweep_id == facts.id)
        .order_by(Ask.ask)
    )
    for ask, number, point_hash, parameters, state, feasible, reason in rows:
        result = None if ask.told is None else TrialResult.from_row(ask.told)
        past.append(PastAsk(ask.ask, ask.suggestions, ask.distributions, ask.system_attrs, result))
        history.results += result is not None
        if ask.trial_id is None:
            continue
        # The last ask of a trial that was tried again says how it stands.
        history.trials += point_hash not in history.known
        history.known[point_hash] = KnownPoint(number, result)
        tried = AskedTrial(ask.ask, point_hash, {name: value for name, value in parameters.items() if name in names})
        for trials in (history.cancelled, history.failed, history.pruned):
            trials.pop(ask.trial_id, None)
        if result is None:
            history.outstanding[ask.trial_id] = tried
        elif state is TrialState.CANCELLED:
            history.cancelled[ask.trial_id] = tried
        elif state is TrialState.FAILED:
            history.failed[ask.trial_id] = tried
            history.last_failure = reason
        elif state is TrialState.PRUNED:
            history.pruned[ask.trial_id] = tried
        elif state == TrialState.COMPLETE and feasible and result.values is not None and ask.told_order is not None:
            ranked.append((ask.told_order, ask.trial_id, result.values))
    return past, [(trial_id, values) for _, trial_id, values in sorted(ranked)]


def _store_ranks(session: Session, sweep_id: str, ranks: Mapping[str, int | None]) -> None:
    if not ranks:
        return
    rows = [{"trial": trial_id, "rank": rank} for trial_id, rank in sorted(ranks.items())]
    session.connection().execute(_RANK, rows)
    # What waits for the leaderboard learns it, though no event says so.
    announce(session, sweep_topic(sweep_id))


def _insert_trials(session: Session, changes: Changes) -> None:
    if not changes.trials:
        return
    connection, time = session.connection(), now(session)
    rows: list[TimedTrialRow] = []
    for trial_id, row in changes.trials.items():
        ended = time if trial_id in changes.reused else None
        rows.append({**row, "created_at": time, "started_at": ended, "ended_at": ended})
    connection.execute(_ADD_TRIALS, rows)
    metrics = [
        {"trial_id": trial_id, "sweep_id": row["sweep_id"], "name": name, "value": float(value)}
        for trial_id, row in ((reused, changes.trials[reused]) for reused in changes.reused)
        for name, value in row["metrics"].items()
    ]
    if metrics:
        connection.execute(_ADD_METRICS, metrics)
    for trial_id, source_id in changes.reused.items():
        reuse.copy_measurements(session, source_id, trial_id)


def _new_trial(trial_id: str, row: TrialRow) -> events.NewEvent:
    number, state = row["number"], row["state"]
    if state is TrialState.QUEUED:
        queued: TrialQueued = {"number": number}
        if row["predicted"] is not None:
            queued["predicted"] = row["predicted"]
        return events.NewEvent("trial.queued", trial_id, queued)
    ended: TrialEnded = {"number": number, "state": state, "feasible": row["feasible"], "reused": True}
    return events.NewEvent("trial.ended", trial_id, ended)


def _sweep_event(
    sequence: int,
    kind: str,
    data: EventData,
    trial_id: str | None,
    feasible: bool | None,
    metrics: dict[str, float] | None,
    violations: dict[str, float] | None,
    reason: str | None,
) -> SweepEvent:
    if kind == "sweep.extended":
        return SweepEvent(sequence, budget=cast("SweepExtended", data)["budget"])
    if kind == slot_shares.CHANGED:
        return SweepEvent(sequence, parallel=cast("SlotsShared", data)["parallel"])
    if kind == "trial.promoted":
        return SweepEvent(sequence, trial_id, promoted=True)
    return SweepEvent(
        sequence,
        trial_id,
        # As the event says it: that is what happened at this point of the order.
        state=TrialState(cast("TrialEnded", data)["state"]),
        feasible=feasible,
        metrics=metrics or {},
        violations=violations or {},
        reason=reason,
    )
