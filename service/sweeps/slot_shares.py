"""How many trials of a sweep may run at once if its budget says `parallel: auto`: its share of the workers' slots.

The slots of the living workers that serve a target are shared evenly between the active `auto` sweeps of that target
that have the same priority, each at least 1, and no more than the quota of its project. A sweep of a lower priority has
a share of all slots too: it is given what the others leave, and no slot stays free if they leave some. A worker of a
project serves the sweeps of that project alone, and one of another `RESULTS_VERSION` than a sweep's target does not
serve it, nor one without a label that the sweep asks for. The number stands in `Sweep.effective_parallel`; each change
is an event, at which a study that is built again asks as the first one did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.labels import missing_labels
from layers.results_version import UNSAID
from layers.space.document_fields import AUTO, MAX_PARALLEL
from service.common.states import SweepState
from service.database.access_models import Project
from service.database.json_columns import SlotsShared
from service.database.models import IS_SEARCH, Event, Sweep, Worker
from service.events import events
from service.events.schemas import EventKind
from service.leases import workers

CHANGED: Final[EventKind] = "sweep.parallel_changed"
"""The kind of the event. Its data: `parallel`, and what it was `before`."""

_IS_AUTO = Sweep.budget["parallel"].as_string() == AUTO
_SHARING = sa.and_(Sweep.state == SweepState.ACTIVE, IS_SEARCH, _IS_AUTO, Sweep.target_key.is_not(None))
_RESULTS_VERSION = sa.func.coalesce(Sweep.results_version, UNSAID)


class Served(NamedTuple):
    """What a worker must have to be given a sweep's trials."""

    target_key: str
    results_version: int


@dataclass(frozen=True, slots=True)
class Sharer:
    """A sweep that takes part."""

    id: str
    project: str
    needs: Served
    labels: tuple[tuple[str, str], ...] = ()
    """Those that it asks for."""
    priority: int = 0
    quota: int | None = None
    """How many trials its project may run at once; None: any number."""

    def is_served_by(self, served: Served, project: str | None, labels: Mapping[str, str]) -> bool:
        """Whether a worker with this target, project and these labels may be given its trials."""
        return (
            self.needs == served and project in (None, self.project) and not missing_labels(dict(self.labels), labels)
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """The slots of one living worker."""

    project: str | None
    """The project that it serves; None: all of them."""
    serves: Sequence[Served]
    slots: int
    labels: tuple[tuple[str, str], ...] = ()

    def serves_trials_of(self, sharer: Sharer) -> bool:
        return any(sharer.is_served_by(served, self.project, dict(self.labels)) for served in self.serves)


@dataclass(frozen=True, slots=True)
class Share:
    """What a sweep may use at once."""

    slots: int
    devices: float
    """0.5 of one that it shares with another sweep; 1 if no worker serves it now."""


def shares(sharers: Iterable[Sharer], offers: Iterable[Offer]) -> dict[str, int]:
    """Sweep -> how many of its trials may run at once. What does not divide evenly goes to the older sweeps."""
    pools: Counter[tuple[Served, str | None, tuple[tuple[str, str], ...]]] = Counter()
    for offer in offers:
        for served in offer.serves:
            pools[served, offer.project, offer.labels] += offer.slots
    ordered = sorted(sharers, key=lambda sharer: sharer.id)
    found: Counter[str] = Counter()
    for (served, project, labels), slots in pools.items():
        served_by_it = [each for each in ordered if each.is_served_by(served, project, dict(labels))]
        for priority in {each.priority for each in served_by_it}:
            sharing = [each.id for each in served_by_it if each.priority == priority]
            for position, sweep_id in enumerate(sharing):
                found[sweep_id] += slots // len(sharing) + (position < slots % len(sharing))
    return {each.id: _within_limits(each, found[each.id]) for each in ordered}


def _within_limits(sharer: Sharer, share: int) -> int:
    most = MAX_PARALLEL if sharer.quota is None else min(MAX_PARALLEL, sharer.quota)
    return max(min(share, most), 1)


def outdated(session: Session, alive_seconds: float) -> set[str]:
    """The sweeps whose number is not their share now."""
    numbers = _numbers(session)
    if not numbers:
        return set()
    now = shares(numbers, _offers(session, alive_seconds))
    return {sharer.id for sharer, number in numbers.items() if now[sharer.id] != number}


def update(session: Session, sweep_id: str, epoch: int, alive_seconds: float) -> None:
    """Give the sweep its share and say so, if it has another number. Nothing is written for who leads no more."""
    numbers = _numbers(session)
    before = next((number for sharer, number in numbers.items() if sharer.id == sweep_id), None)
    if before is None:
        return
    share = shares(numbers, _offers(session, alive_seconds))[sweep_id]
    if share == before:
        return
    stored = session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, Sweep.leader_epoch == epoch, Sweep.state == SweepState.ACTIVE)
        .where(Sweep.effective_parallel == before)
        .values(effective_parallel=share)
        .returning(Sweep.id)
        .execution_options(synchronize_session=False)
    )
    if stored is not None:
        data: SlotsShared = {"parallel": share, "before": before}
        events.append(session, sweep_id, "sweep.parallel_changed", data=data)


def share_of_another(
    session: Session, project: str, target_key: str, labels: Mapping[str, str], alive_seconds: float
) -> Share:
    """What one more `auto` sweep of the project, the target and these labels would have now."""
    offers, others = _offers(session, alive_seconds), list(_numbers(session))
    quota = session.scalar(sa.select(Project.max_running_trials).where(Project.name == project))
    # No id sorts behind it: the newest sweep gets nothing of what is left over.
    another = Sharer("~", project, _newest(offers, target_key), _sorted(labels), quota=quota)
    devices = sum(
        1 / (1 + sum(offer.serves_trials_of(other) for other in others if other.needs == another.needs))
        for offer in offers
        if offer.serves_trials_of(another)
    )
    return Share(shares([*others, another], offers)[another.id], devices or 1.0)


def as_of_scheduled(session: Session, sweep: Sweep) -> int:
    """The number at the last event that the sweep's scheduler has worked in: what it asked ahead depended on it."""
    if sweep.budget["parallel"] != AUTO:
        return sweep.effective_parallel
    changes = sa.select(Event.data).where(Event.sweep_id == sweep.id, Event.kind == CHANGED)
    is_worked_in = Event.sequence <= sweep.scheduled_sequence
    last = session.scalar(changes.where(is_worked_in).order_by(Event.sequence.desc()).limit(1))
    if last is not None:
        return cast("SlotsShared", last)["parallel"]
    # Of a sweep that ended long ago the events are deleted.
    following = session.scalar(changes.where(sa.not_(is_worked_in)).order_by(Event.sequence).limit(1))
    return sweep.effective_parallel if following is None else cast("SlotsShared", following)["before"]


def _numbers(session: Session) -> dict[Sharer, int]:
    """The sweeps that share, each with the number that it has."""
    rows = session.execute(
        sa.select(
            Sweep.id,
            Sweep.project,
            Sweep.target_key,
            _RESULTS_VERSION,
            Sweep.labels,
            Sweep.priority,
            Project.max_running_trials,
            Sweep.effective_parallel,
        )
        .join(Project, Project.name == Sweep.project, isouter=True)
        .where(_SHARING)
    )
    return {
        Sharer(sweep_id, project, Served(str(key), version), _sorted(labels), priority, quota): number
        for sweep_id, project, key, version, labels, priority, quota, number in rows
    }


def _offers(session: Session, alive_seconds: float) -> list[Offer]:
    rows = session.execute(
        sa.select(Worker.project, Worker.targets, Worker.slots, Worker.labels).where(workers.is_alive(alive_seconds))
    )
    return [
        Offer(
            project,
            [
                Served(target["key"], workers.results_version_of(target))
                for target in targets
                if not target.get("build_only")
            ],
            slots,
            _sorted(labels),
        )
        for project, targets, slots, labels in rows
    ]


def _sorted(labels: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((labels or {}).items()))


def _newest(offers: Sequence[Offer], target_key: str) -> Served:
    """What a sweep that comes now would need: of the versions that workers have, the newest."""
    served = [each for offer in offers for each in offer.serves if each.target_key == target_key]
    return max(served, default=Served(target_key, UNSAID))
