"""The queue by what its trials need of a worker: how many wait, for how long, and why nothing takes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session, load_only

from layers.labels import missing_labels, shown_labels
from layers.results_version import UNSAID
from layers.space.document_fields import AUTO, MAX_PARALLEL
from service.common.formatting import plural
from service.common.states import GOING_SWEEPS, SweepState, TrialState
from service.database import counts
from service.database.access_models import Project
from service.database.json_columns import RegisteredTarget
from service.database.models import Sweep, Trial, Worker
from service.database.sessions import now
from service.fleet.schemas import QueueEntry
from service.leases import workers
from service.sweeps import targets
from service.sweeps.schemas import SweepWait, WaitingCause

# Word for word the conditions of the indexes: finished trials cost nothing.
_IS_OPEN = sa.text("trials.state IN ('queued', 'running')")
_IS_RUNNING = sa.text("trials.state = 'running'")
_COLUMNS = (
    Sweep.budget,
    Sweep.project,
    Sweep.priority,
    Sweep.target_runtime,
    Sweep.target,
    Sweep.target_key,
    Sweep.results_version,
    Sweep.labels,
    Sweep.reason,
    Sweep.counts,
    Sweep.running_count,
    Sweep.effective_parallel,
)
"""The document is long, and nobody looks at it here."""


class Needs(NamedTuple):
    """What the trials of some sweeps need, and how urgently."""

    project: str
    priority: int
    target_key: str | None
    runtime: str | None
    results_version: int
    labels: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Waiting:
    """The active sweeps with the same needs."""

    target: RegisteredTarget | None
    sweeps: int = 0
    queued: int = 0
    running: int = 0
    may_run: int = 0
    share_slots: int = 0
    """How many of the sweeps say `parallel: auto`."""
    wanted: int = 0
    """Slots that the sweeps could use at once, however many there are."""
    oldest_at: float | None = None
    reason: str | None = None
    """Of a sweep that has no target: what it waits for."""


class Quota(NamedTuple):
    """How many trials a project may run at once, and how many it runs."""

    project: str
    allowed: int
    running: int


@dataclass(frozen=True, slots=True)
class LivingWorker:
    id: str
    project: str | None
    versions: Mapping[str, int]
    """Target -> the version of its results."""
    runtimes: Collection[str]
    labels: Mapping[str, str]
    slots: int
    busy: int


@dataclass(slots=True)
class Serving:
    """The living workers that may take some trials, or what those lack that come nearest."""

    workers: list[LivingWorker] = field(default_factory=list[LivingWorker])
    cause: WaitingCause | None = None
    lacks: str | None = None

    @property
    def slots(self) -> int:
        return sum(worker.slots for worker in self.workers)

    @property
    def busy(self) -> int:
        return sum(worker.busy for worker in self.workers)


def entries(session: Session, project: str | None, alive_seconds: float) -> list[QueueEntry]:
    """What waits in a project (None: in all), by what it needs; the longest wait first."""
    waiting = _waiting(session)
    if not any(project in (None, needs.project) for needs in waiting):
        return []
    quotas = _quotas(session)
    servings = _servings(session, waiting, quotas, alive_seconds)
    time = now(session)
    found = [
        _entry(needs, each, servings[needs], quotas.get(needs.project), time)
        for needs, each in waiting.items()
        if project in (None, needs.project)
    ]
    return sorted(found, key=lambda entry: -(entry.oldest_seconds or 0.0))


def wait_of(session: Session, sweep: Sweep, alive_seconds: float) -> SweepWait | None:
    """Why no worker takes the trials of a sweep; None if one runs or is about to, or nothing waits."""
    is_waiting = sweep.target_key is None or counts.queued(sweep.counts) > 0
    if sweep.state != SweepState.ACTIVE or sweep.running_count or not is_waiting:
        return None
    found = _servings(session, _waiting(session), _quotas(session), alive_seconds).get(_needs(sweep))
    if found is None or found.cause is None or found.lacks is None:
        return None
    return SweepWait(cause=found.cause, reason=found.lacks)


def _servings(
    session: Session, waiting: Mapping[Needs, Waiting], quotas: Mapping[str, Quota], alive_seconds: float
) -> dict[Needs, Serving]:
    living = _living(session, alive_seconds)
    servings = {needs: _serving(needs, each, living) for needs, each in waiting.items()}
    for needs, serving in servings.items():
        if serving.cause is None and waiting[needs].queued:
            serving.cause, serving.lacks = _busy(waiting[needs], serving, quotas.get(needs.project))
    _note_higher_priorities(waiting, servings)
    return servings


def _needs(sweep: Sweep) -> Needs:
    version = UNSAID if sweep.results_version is None else sweep.results_version
    runtime = sweep.target_runtime if sweep.target is None else sweep.target["runtime"]
    labels = tuple(sorted((sweep.labels or {}).items()))
    return Needs(sweep.project, sweep.priority, sweep.target_key, runtime, version, labels)


def _waiting(session: Session) -> dict[Needs, Waiting]:
    oldest = _oldest(session)
    waiting: dict[Needs, Waiting] = {}
    query = sa.select(Sweep).options(load_only(*_COLUMNS)).where(Sweep.state == SweepState.ACTIVE).order_by(Sweep.id)
    for sweep in session.scalars(query):
        found = waiting.setdefault(_needs(sweep), Waiting(sweep.target))
        found.sweeps += 1
        found.queued += counts.queued(sweep.counts)
        found.running += sweep.running_count
        found.may_run += sweep.effective_parallel
        found.share_slots += sweep.budget["parallel"] == AUTO
        found.wanted += _wanted_slots(sweep)
        ages = [age for age in (found.oldest_at, oldest.get(sweep.id)) if age is not None]
        found.oldest_at = min(ages, default=None)
        if sweep.target_key is None:
            found.reason = sweep.reason
    return waiting


def _wanted_slots(sweep: Sweep) -> int:
    """Slots that the sweep could use at once: `parallel: auto` grows with the workers, a number does not."""
    parallel = sweep.budget["parallel"]
    most = MAX_PARALLEL if parallel == AUTO else parallel
    if sweep.target_key is None:
        # Nothing is asked for before a worker has said what its target can do.
        return 1 if parallel == AUTO else min(most, sweep.budget["trials"])
    return min(most, counts.queued(sweep.counts) + sweep.running_count)


def _oldest(session: Session) -> dict[str, float]:
    """Sweep -> when the oldest of its trials that wait was asked for."""
    rows = session.execute(
        sa.select(Trial.sweep_id, sa.func.min(Trial.created_at).label("oldest_at"))
        .where(_IS_OPEN, Trial.state == TrialState.QUEUED)
        .group_by(Trial.sweep_id)
    )
    return {row.sweep_id: row.oldest_at for row in rows}


def _quotas(session: Session) -> dict[str, Quota]:
    """The projects whose trials at once are limited."""
    rows = session.execute(
        sa.select(Project.name, Project.max_running_trials, sa.func.coalesce(sa.func.sum(Sweep.running_count), 0))
        .join(Sweep, sa.and_(Sweep.project == Project.name, Sweep.state.in_(GOING_SWEEPS)))
        .where(Project.max_running_trials.is_not(None))
        .group_by(Project.name, Project.max_running_trials)
    )
    return {name: Quota(name, allowed or 0, running) for name, allowed, running in rows}


def _living(session: Session, alive_seconds: float) -> list[LivingWorker]:
    rows = session.execute(sa.select(Trial.worker_id, sa.func.count()).where(_IS_RUNNING).group_by(Trial.worker_id))
    busy = {str(worker_id): count for worker_id, count in rows}
    return [
        LivingWorker(
            worker.id,
            worker.project,
            {
                target["key"]: workers.results_version_of(target)
                for target in worker.targets
                if not target.get("build_only")
            },
            {target["runtime"] for target in worker.targets if not target.get("build_only")},
            worker.labels,
            worker.slots,
            min(busy.get(worker.id, 0), worker.slots),
        )
        for worker in session.scalars(sa.select(Worker).where(workers.is_alive(alive_seconds)))
    ]


def _entry(needs: Needs, waiting: Waiting, serving: Serving, quota: Quota | None, time: float) -> QueueEntry:
    target = cast("RegisteredTarget", waiting.target or {})
    return QueueEntry(
        project=needs.project,
        priority=needs.priority,
        target=needs.target_key,
        runtime=needs.runtime,
        version=target.get("version"),
        device_model=target.get("device_model"),
        compute_capability=target.get("compute_capability"),
        devices=None if waiting.target is None else target.get("devices", 1),
        device_memory_bytes=target.get("device_memory_bytes"),
        results_version=needs.results_version,
        labels=dict(needs.labels),
        sweeps=waiting.sweeps,
        queued=waiting.queued,
        running=waiting.running,
        oldest_seconds=None if waiting.oldest_at is None else max(0.0, time - waiting.oldest_at),
        workers=len(serving.workers),
        slots=serving.slots,
        busy_slots=serving.busy,
        wanted_slots=waiting.wanted if quota is None else min(waiting.wanted, quota.allowed),
        cause=serving.cause,
        waits_for=serving.lacks,
    )


def _serving(needs: Needs, waiting: Waiting, everybody: Sequence[LivingWorker]) -> Serving:
    """Who may take the trials, of living workers."""
    living = [each for each in everybody if each.project in (None, needs.project)]
    labels = dict(needs.labels)
    key = needs.target_key
    if key is None:
        return _serving_without_target(needs, waiting, living, nobody=not everybody)
    having = [each for each in living if key in each.versions]
    if not having:
        return Serving(cause="worker", lacks=f"no living worker has {key}")
    alike = [each for each in having if each.versions[key] == needs.results_version]
    if not alike:
        others = _listed(each.versions[key] for each in having)
        lacks = f"workers with {key} measure by version {others} of the results: {needs.results_version} is needed"
        return Serving(cause="results_version", lacks=lacks)
    fit = [each for each in alike if not missing_labels(labels, each.labels)]
    if not fit:
        return Serving(cause="label", lacks=_lacking(labels, alike))
    return Serving(fit)


def _serving_without_target(needs: Needs, waiting: Waiting, living: Sequence[LivingWorker], *, nobody: bool) -> Serving:
    """`living` are the workers of the project; `nobody`: there is none of another one either."""
    labels, runtime = dict(needs.labels), needs.runtime
    having = [each for each in living if runtime is None or runtime in each.runtimes]
    if not living:
        lacks = "no worker is alive" if nobody else f"no living worker serves the project {needs.project}"
    elif not having:
        others = ", ".join(sorted({name for each in living for name in each.runtimes}))
        lacks = f"the living workers have {others or 'none that can run models'}"
    else:
        lacks = _lacking(labels, having)
    if lacks is not None:
        return Serving(cause="target", lacks=f"{targets.waits_for(runtime, labels)}: {lacks}")
    # The scheduler has asked their targets about the space, or is about to.
    if waiting.reason in (None, targets.waits_for(runtime, labels)):
        return Serving(having)
    return Serving(cause="target", lacks=waiting.reason)


def _busy(waiting: Waiting, serving: Serving, quota: Quota | None) -> tuple[WaitingCause | None, str | None]:
    if waiting.running >= waiting.may_run:
        return "parallel", f"{plural(waiting.running, 'trial')} at once is what {_limit_of(waiting)}"
    if quota is not None and quota.running >= quota.allowed:
        allowed = plural(quota.allowed, "trial")
        return "quota", f"{allowed} at once is the quota of the project {quota.project}, and as many run"
    if serving.busy >= serving.slots:
        return "slot", f"{plural(serving.slots, 'slot')} of {plural(len(serving.workers), 'worker')}, and none is free"
    return None, None


def _limit_of(waiting: Waiting) -> str:
    """What lets no more of the sweeps' trials run at once: what their users said, or, with `auto`, the workers."""
    if not waiting.share_slots:
        return "the budget allows"
    if waiting.sweeps == 1:
        return "its share of the slots allows (parallel: auto)"
    also = "" if waiting.share_slots == waiting.sweeps else " and their budgets"
    return f"their shares of the slots{also} allow (parallel: auto)"


def _note_higher_priorities(waiting: Mapping[Needs, Waiting], servings: Mapping[Needs, Serving]) -> None:
    """Say of those that wait for a slot whether trials of a higher priority wait for the same slots."""
    eager = [needs for needs, serving in servings.items() if waiting[needs].queued and serving.cause == "slot"]
    for needs in eager:
        own = {worker.id for worker in servings[needs].workers}
        first = [
            other
            for other in eager
            if other.priority > needs.priority and any(worker.id in own for worker in servings[other].workers)
        ]
        if first:
            count = sum(waiting[other].queued for other in first)
            serving = servings[needs]
            serving.cause = "priority"
            serving.lacks = f"{plural(count, 'trial')} of a higher priority than {needs.priority} must begin first"


def _lacking(labels: Mapping[str, str], living: Collection[LivingWorker]) -> str | None:
    """Which labels the worker lacks that has most of them; None if one has all, or none is needed."""
    if not labels:
        return None
    missing = min((missing_labels(labels, each.labels) for each in living), key=len, default=dict(labels))
    return f"no living worker is labelled {shown_labels(missing)}" if missing else None


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(str(version) for version in sorted(set(versions)))
