"""Budgets of sweeps: when their time is used up, and what it takes to extend them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from sqlalchemy.orm import Session

from layers.space.document_fields import BUDGET, MAX_SECONDS, Budget
from service.checkpoints import checkpoints
from service.common.states import GOING_SWEEPS, SweepKind, SweepState, TrialState
from service.database.models import Sweep
from service.database.sessions import now
from service.errors import ConflictError, NotFoundError, Problem, UnprocessableError
from service.events import events
from service.sweeps import sweeps
from service.sweeps.schemas import BudgetExtension

_Amount = TypeVar("_Amount", int, float)

TimeBudget = Literal["wall_seconds", "device_seconds"]

LIMITED = (Sweep.state, Sweep.started_at, Sweep.device_seconds, Sweep.budget)
"""What `time_used_up` is asked with, and the database's time."""


def time_used_up(
    state: str, started_at: float | None, device_seconds: float, budget: Budget, time: float
) -> TimeBudget | None:
    """Which budget of time an active sweep has used up."""
    if state != SweepState.ACTIVE or started_at is None:
        return None
    # A sweep of an older version has no budget of device time.
    wall, device = budget.get("wall_seconds"), budget.get("device_seconds")
    if wall is not None and time >= started_at + wall:
        return "wall_seconds"
    return "device_seconds" if device is not None and device_seconds >= device else None


def extend(session: Session, sweep_id: str, extension: BudgetExtension) -> Sweep:
    """Add to the budget; a sweep that ended because of it goes on. Raises NotFoundError, ConflictError,
    UnprocessableError.

    Points that the end cut off are tried again first, points that had failed once more at the end.
    """
    sweep = session.get(Sweep, sweep_id, with_for_update={"key_share": True}, populate_existing=True)
    if sweep is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    if sweep.kind is SweepKind.CONFIRMATION:
        raise ConflictError("a confirmation has no budget to extend: its trials are all there from the beginning")
    budget = _extended(sweep.budget, extension)
    reopened = sweep.state not in GOING_SWEEPS
    if reopened:
        _refuse_unless_reopenable(sweep, budget)
        checkpoints.check_kept(session, sweep.document, sweep.project)
    for use in _time_uses(session, sweep):
        added = extension.wall_seconds if use.budget == "wall_seconds" else extension.device_seconds
        if reopened or added:
            use.refuse_if_above(budget.get(use.budget), added)
    sweep.budget = budget
    if reopened:
        sweep.state, sweep.reason, sweep.ended_at = SweepState.ACTIVE, None, None
    session.flush()
    events.append(session, sweep_id, "sweep.extended", data={"budget": budget})
    if reopened:
        events.append(session, sweep_id, "sweep.state", data={"state": SweepState.ACTIVE, "reason": None})
    return sweeps.get(session, sweep_id)


@dataclass(frozen=True, slots=True)
class _TimeUse:
    """What a sweep has used of one budget of time."""

    budget: TimeBudget
    seconds: float
    why: str
    refusal: str

    def refuse_if_above(self, limit: float | None, added: float) -> None:
        """Raise UnprocessableError if the sweep has used up the limit, to which `added` was added already."""
        if limit is None or self.seconds < limit:
            return
        remedy = f"extend {self.budget} by more than {added + self.seconds - limit:.0f}"
        problem = Problem(f"/{self.budget}", f"{self.why}, so the sweep would end at once", remedy)
        raise UnprocessableError(self.refusal, problems=[problem])


def _time_uses(session: Session, sweep: Sweep) -> Iterator[_TimeUse]:
    if sweep.started_at is not None:
        yield _TimeUse(
            "wall_seconds",
            now(session) - sweep.started_at,
            "the clock runs from the sweep's start",
            "the extended wall-clock budget has already run out",
        )
    yield _TimeUse(
        "device_seconds",
        sweep.device_seconds,
        f"the sweep's attempts have taken {sweep.device_seconds:.0f} s",
        "the extended budget of device time is used up already",
    )


def _extended(budget: Budget, extension: BudgetExtension) -> Budget:
    if not (extension.trials or extension.failures or extension.wall_seconds or extension.device_seconds):
        raise UnprocessableError(
            "the extension adds nothing: give trials, failures, wall_seconds or device_seconds above 0"
        )
    extended = budget.copy()
    extended["trials"] = _sum("trials", budget["trials"], extension.trials, BUDGET["trials"][2])
    extended["failures"] = _sum("failures", budget["failures"], extension.failures, BUDGET["failures"][2])
    wall, device = budget["wall_seconds"], budget.get("device_seconds")
    _refuse_without_limit("wall_seconds", wall, extension.wall_seconds, "wall-clock limit")
    _refuse_without_limit("device_seconds", device, extension.device_seconds, "limit of device time")
    if wall is not None:
        extended["wall_seconds"] = _sum("wall_seconds", wall, extension.wall_seconds, MAX_SECONDS)
    if device is not None:
        extended["device_seconds"] = _sum("device_seconds", device, extension.device_seconds, MAX_SECONDS)
    return extended


def _refuse_without_limit(name: str, limit: float | None, added: float, what: str) -> None:
    if added and limit is None:
        problem = Problem(f"/{name}", f"the sweep has no {what}", "leave it out")
        raise UnprocessableError(f"the sweep has no {what} to extend", problems=[problem])


def _sum(name: str, before: _Amount, added: _Amount, most: int) -> _Amount:
    """An amount of the budget with what is added. Raises UnprocessableError if that is too much."""
    amount = before + added if added else before
    if added and amount > most:
        problem = Problem(f"/{name}", f"the budget would be {amount:,}", f"at most {most:,} in all")
        raise UnprocessableError(f"a budget has at most {most:,} {name}", problems=[problem])
    return amount


def _refuse_unless_reopenable(sweep: Sweep, budget: Budget) -> None:
    """Raise ConflictError unless the extended budget lets the sweep go on: with new points, or with trials to try
    again."""
    ended = f"the sweep is {sweep.state} ({sweep.reason})"
    if sweep.state == SweepState.CANCELLED:
        raise ConflictError(f"{ended}: a larger budget does not continue it")
    counts = sweep.counts
    failed, cut_off = counts.get(TrialState.FAILED, 0), counts.get(TrialState.CANCELLED, 0)
    if failed >= budget["failures"]:
        raise ConflictError(f"{ended}: extend failures to continue it")
    if failed:
        return
    if sweep.reason == "space_exhausted" and not cut_off:
        raise ConflictError(f"{ended}: a larger budget does not continue it")
    progress = sweeps.progress_of(sweep)
    if progress.trials + progress.replicates - cut_off >= budget["trials"]:
        raise ConflictError(f"{ended}: extend trials to continue it")
