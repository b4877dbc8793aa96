"""Sweeps: made from a document, listed, extended, ended, deleted. What they try next is the scheduler's matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.space.document_fields import AUTO
from service.auth.projects import DEFAULT, allowed_priority
from service.common.ids import new_id
from service.common.paging import decode_token, first_page
from service.common.states import ENDED_SWEEPS, GOING_SWEEPS, SweepState
from service.database.counts import REPLICATE, replicates_of
from service.database.models import IS_SEARCH, Sweep
from service.database.sessions import UNSYNCHRONIZED, now, now_sql
from service.datasets.datasets import names_of
from service.errors import ConflictError, NotFoundError, UnprocessableError
from service.events import events
from service.events.end_codes import end_code
from service.leases import row_locks
from service.leases.queue import cancel_open
from service.noise.sweep_noise import noise_of_sweep
from service.pruning.summary import summary_of
from service.sweeps import annotation
from service.sweeps import schemas as sweep_schemas
from service.sweeps.best_trials import best_of_each
from service.sweeps.drafts import ValidatedDocument
from service.sweeps.spared_builds import spared_builds_of
from service.sweeps.targets import waits_for

_Amount = TypeVar("_Amount", int, float)

Sort = Literal["created_at", "-created_at", "name", "-name"]
Archived = Literal["hide", "show", "only"]
"""Whether a list holds archived sweeps."""


@dataclass(frozen=True, slots=True)
class SweepFilter:
    """Which sweeps a list holds, and in which order; None and () leave a filter out."""

    project: str | None = None
    states: tuple[str, ...] = ()
    task: str | None = None
    name: str | None = None
    """Part of the name, in upper or lower case."""
    tag: str | None = None
    archived: Archived = "hide"
    sort: Sort = "-created_at"

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        given: list[tuple[object, sa.ColumnElement[bool]]] = [
            (self.project, Sweep.project == self.project),
            (self.states, Sweep.state.in_(self.states)),
            (self.task, Sweep.task == self.task),
            (self.name, Sweep.name.icontains(self.name or "", autoescape=True)),
            (self.tag, annotation.has_tag(self.tag or "")),
            (self.archived != "show", Sweep.archived == (self.archived == "only")),
        ]
        return [condition for value, condition in given if value]


def insert(
    session: Session,
    prepared: ValidatedDocument,
    *,
    project: str = DEFAULT,
    priority: int | None = None,
    source: str | None = None,
    tags: Sequence[str] = (),
) -> Sweep:
    """Store a new sweep; `source`: the text of its document, if it is kept.

    Raises ConflictError if its dataset or a checkpoint was deleted, ForbiddenError for a priority that it may not have.
    """
    priority = allowed_priority(session, project, priority)
    document = prepared.document
    prepared.keep_data(session, project)
    sweep = Sweep(
        id=new_id(),
        project=project,
        name=document.name,
        task=document.task,
        dataset_id=prepared.dataset_id,
        document=document.normalized,
        source=source,
        objectives=list(document.objectives),
        budget=document.budget,
        effective_parallel=1 if document.budget["parallel"] == AUTO else document.budget["parallel"],
        sampler=prepared.choice.sampler,
        sampler_reason=prepared.choice.reason,
        pruner=prepared.pruner.pruner,
        pruner_reason=prepared.pruner.reason,
        space=prepared.space(),
        priority=priority,
        tags=annotation.without_repetitions(tags),
        target_runtime=document.target_runtime,
        labels=dict(document.target_labels) or None,
        state=SweepState.ACTIVE,
        reason=waits_for(document.target_runtime, document.target_labels),
        counts={},
        created_at=now(session),
    )
    session.add(sweep)
    session.flush()
    events.append(session, sweep.id, "sweep.created", data={"name": sweep.name})
    return get(session, sweep.id)


def get(session: Session, sweep_id: str) -> Sweep:
    """Return the sweep as the database has it now, or raise NotFoundError."""
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    return sweep


def page(
    session: Session, wanted: SweepFilter, *, page_size: int, page_token: str | None
) -> tuple[list[sweep_schemas.Sweep], str | None]:
    """Return a page of sweeps, and the token of the next. Raises UnprocessableError for another list's token.

    Confirmations are listed with the sweep that they confirm.
    """
    name, descending = wanted.sort.removeprefix("-"), wanted.sort.startswith("-")
    # Ids sort by the time at which they were made.
    key: list[Any] = [Sweep.id] if name == "created_at" else [Sweep.name, Sweep.id]
    statement = sa.select(Sweep).where(IS_SEARCH, *wanted.conditions())
    if page_token is not None:
        sort, *after = decode_token(page_token, str, *(str for _ in key))
        if sort != wanted.sort:
            raise UnprocessableError.at("/page_token", "page_token belongs to another sort", "begin again without it")
        ours, theirs = sa.tuple_(*key), sa.tuple_(*after)
        statement = statement.where(ours < theirs if descending else ours > theirs)
    order = [column.desc() if descending else column.asc() for column in key]
    found = session.scalars(statement.order_by(*order).limit(page_size + 1)).all()
    rows, token = first_page(found, page_size, lambda row: (wanted.sort, *(getattr(row, column.key) for column in key)))
    return _shown(session, rows), token


def detail(session: Session, sweep: Sweep) -> sweep_schemas.SweepDetail:
    """The sweep with its document, as it crosses HTTP."""
    (shown,) = _shown(session, [sweep])
    return sweep_schemas.SweepDetail(
        **shown.__dict__,
        document=sweep.document,
        transfer=None if sweep.transfer is None else sweep_schemas.Transfer(**sweep.transfer),
        pruning=summary_of(session, sweep),
        spared_builds=spared_builds_of(session, sweep),
        noise=noise_of_sweep(session, sweep),
    )


# --- actions ----------------------------------------------------------------------------------------------------------


def cancel(session: Session, sweep_id: str) -> Sweep:
    """End the sweep: what is queued or runs is cancelled. Cancelling twice is fine. Raises NotFoundError,
    ConflictError."""
    sweep = get(session, sweep_id)
    if sweep.state == SweepState.CANCELLED:
        return sweep
    _refuse_unless(sweep, GOING_SWEEPS, "be cancelled")
    cancel_open(session, sweep_id, "the sweep was cancelled")
    end(session, sweep_id, SweepState.CANCELLED, "cancelled by a user")
    return get(session, sweep_id)


def pause(session: Session, sweep_id: str) -> Sweep:
    """Let no worker claim more trials of the sweep; those that run go on. Raises NotFoundError, ConflictError."""
    return _turn(session, sweep_id, SweepState.ACTIVE, SweepState.PAUSED, "be paused", "paused by a user")


def resume(session: Session, sweep_id: str) -> Sweep:
    """Let workers claim trials of a paused sweep again. Raises NotFoundError, ConflictError."""
    sweep = get(session, sweep_id)
    reason = waits_for(sweep.target_runtime, sweep.labels or {}) if sweep.target_key is None else None
    return _turn(session, sweep_id, SweepState.PAUSED, SweepState.ACTIVE, "be resumed", reason)


def prioritize(session: Session, sweep_id: str, priority: int) -> Sweep:
    """Give the sweep another priority. Raises NotFoundError, ConflictError, ForbiddenError if its project may not
    use it."""
    row_locks.take_sweeps(session, [sweep_id])
    sweep = get(session, sweep_id)
    _refuse_unless(sweep, GOING_SWEEPS, "have another priority")
    allowed_priority(session, sweep.project, priority)
    before = sweep.priority
    if priority != before:
        sweep.priority = priority
        session.flush()
        events.append(session, sweep_id, "sweep.priority", data={"priority": priority, "before": before})
    return get(session, sweep_id)


def delete(session: Session, sweep_id: str) -> None:
    """Delete a sweep that has ended, with its trials and events. Raises NotFoundError, ConflictError."""
    sweep = get(session, sweep_id)
    _refuse_unless(sweep, ENDED_SWEEPS, "be deleted")
    deleted = session.scalar(
        sa.delete(Sweep)
        .where(Sweep.id == sweep_id, Sweep.state.in_(ENDED_SWEEPS))
        .returning(Sweep.id)
        .execution_options(**UNSYNCHRONIZED)
    )
    if deleted is None:
        # Somebody has extended it meanwhile, or was first.
        _refuse_unless(get(session, sweep_id), ENDED_SWEEPS, "be deleted")


def end(session: Session, sweep_id: str, state: SweepState, reason: str) -> int:
    """Write that a sweep has ended, after its open trials were cancelled; return the event's sequence.

    Raises ConflictError if it had ended before.
    """
    ended = session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, Sweep.state.in_(GOING_SWEEPS))
        .values(state=state, reason=reason, ended_at=now_sql())
        .returning(Sweep.id)
        .execution_options(**UNSYNCHRONIZED)
    )
    if ended is None:
        raise ConflictError("the sweep has ended meanwhile")
    return events.append(session, sweep_id, "sweep.state", data={"state": state, "reason": reason})


def _turn(
    session: Session, sweep_id: str, before: SweepState, after: SweepState, what: str, reason: str | None
) -> Sweep:
    sweep = get(session, sweep_id)
    if sweep.state == after:
        return sweep
    _refuse_unless(sweep, (before,), what)
    turned = session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, Sweep.state == before)
        .values(state=after, reason=reason)
        .returning(Sweep.id)
        .execution_options(**UNSYNCHRONIZED)
    )
    if turned is None:
        _refuse_unless(get(session, sweep_id), (before,), what)
    events.append(session, sweep_id, "sweep.state", data={"state": after, "reason": reason})
    return get(session, sweep_id)


def _refuse_unless(sweep: Sweep, states: Sequence[str], what: str) -> None:
    if sweep.state not in states:
        raise ConflictError(f"the sweep is {sweep.state}: only one that is {' or '.join(states)} can {what}")


# --- what is shown ----------------------------------------------------------------------------------------------------


def progress_of(sweep: Sweep) -> sweep_schemas.Progress:
    """Trials by state."""
    counts = {name: count for name, count in sweep.counts.items() if not name.startswith(REPLICATE)}
    trials = sum(count for state, count in counts.items() if state != "reused")
    return sweep_schemas.Progress(
        trials=trials,
        budget=sweep.budget["trials"],
        rejected=sweep.rejected_count,
        replicates=replicates_of(sweep.counts),
        **counts,
    )


def _shown(session: Session, sweeps: Sequence[Sweep]) -> list[sweep_schemas.Sweep]:
    best = best_of_each(session, sweeps)
    datasets = names_of(session, {sweep.dataset_id for sweep in sweeps if sweep.dataset_id is not None})
    return [_to_schema(sweep, best[sweep.id], datasets.get(sweep.dataset_id or "")) for sweep in sweeps]


def _to_schema(sweep: Sweep, best: dict[str, sweep_schemas.BestTrial], dataset: str | None) -> sweep_schemas.Sweep:
    return sweep_schemas.Sweep(
        id=sweep.id,
        name=sweep.name,
        project=sweep.project,
        task=sweep.task,
        dataset=dataset,
        note=sweep.note,
        tags=sweep.tags,
        archived=sweep.archived,
        priority=sweep.priority,
        state=sweep.state,
        reason=sweep.reason,
        end_code=end_code(sweep, feasible=bool(best)),
        objectives=[sweep_schemas.Objective.model_validate(each) for each in sweep.objectives],
        constraints=sweep.document.get("constraints", []),
        budget=sweep_schemas.Budget.model_validate(sweep.budget),
        effective_parallel=sweep.effective_parallel,
        device_seconds=sweep.device_seconds,
        sampler=sweep.sampler,
        sampler_reason=sweep.sampler_reason,
        space=sweep_schemas.SpaceFacts.model_validate(sweep.space),
        target=sweep.target_key,
        progress=progress_of(sweep),
        best=best,
        version=sweep.event_counter,
        created_at=sweep.created_at,
        started_at=sweep.started_at,
        ended_at=sweep.ended_at,
    )
