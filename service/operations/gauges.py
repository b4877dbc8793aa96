"""What the database says of itself at the moment of a scrape, for Prometheus: the same from every process.

Trials are counted where their sweeps keep count: the cost grows with the number of sweeps, not of trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.orm import Session

from layers.labels import shown_labels
from service.common.states import SweepState, TrialState
from service.database import counts
from service.database.access_models import Webhook, WebhookDelivery
from service.database.models import IS_SEARCH, Event, Sweep, Trial, Worker
from service.database.sessions import Database, now_sql
from service.fleet import busyness, queue_by_needs
from service.fleet.busyness import Busyness
from service.fleet.schemas import QueueEntry
from service.leases.workers import is_alive

_IS_RUNNING = sa.text("trials.state = 'running'")
_IS_OF_ACTIVE = sa.exists().where(Sweep.id == Trial.sweep_id, Sweep.state == SweepState.ACTIVE)

_ENDINGS = (
    sa.select(sa.func.count(), now_sql() - sa.func.min(Event.created_at))
    .select_from(Sweep)
    .join(Event, sa.and_(Event.sweep_id == Sweep.id, Event.sequence > Sweep.scheduled_sequence))
    .join(Trial, Trial.id == Event.trial_id)
    # A scheduler worked in what it reused when it asked for it.
    .where(Sweep.state == SweepState.ACTIVE, IS_SEARCH, Event.kind == "trial.ended", Trial.reused_from.is_(None))
)
_DELIVERIES = (
    sa.select(sa.func.count(), now_sql() - sa.func.min(WebhookDelivery.created_at))
    .select_from(WebhookDelivery)
    .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
    .where(sa.text("webhook_deliveries.state = 'pending'"), Webhook.enabled)
)


@dataclass(slots=True)
class Figures:
    """One look at the database."""

    sweeps: Counter[str] = field(default_factory=Counter[str])
    trials: Counter[str] = field(default_factory=Counter[str])
    waiting: int = 0
    """Queued trials of active sweeps: what workers may claim, as far as `budget.parallel` lets them."""
    unscheduled: int = 0
    """Endings of trials that the schedulers have not worked in."""
    unscheduled_seconds: float = 0.0
    """Since the oldest of them."""
    lapsed: int = 0
    """Of active sweeps: nobody takes over what a paused sweep has lost."""
    workers: int = 0
    slots: int = 0
    """Of the workers that are alive."""
    busyness: list[tuple[str, str, Busyness]] = field(default_factory=list[tuple[str, str, Busyness]])
    """Name, device model, and how busy it was lately, of each worker that is alive."""
    busy_slots: int = 0
    """Those of them that execute a trial."""
    deliveries: int = 0
    """To webhooks that are enabled."""
    deliveries_seconds: float = 0.0
    """Since the oldest of them was written."""


def read_figures(session: Session, alive_seconds: float) -> Figures:
    """Read the figures."""
    found = Figures()
    for state, of_sweep in session.execute(sa.select(Sweep.state, Sweep.counts)):
        found.sweeps[state] += 1
        found.trials.update({each: of_sweep[each] for each in TrialState if each in of_sweep})
        if state == SweepState.ACTIVE:
            found.waiting += counts.queued(of_sweep)
    found.unscheduled, found.unscheduled_seconds = _waiting(session, _ENDINGS)
    found.lapsed = _count(
        session,
        sa.select(sa.func.count())
        .select_from(Trial)
        # Word for word the condition of the index: finished trials cost nothing.
        .where(_IS_RUNNING, Trial.lease_expires_at < now_sql(), _IS_OF_ACTIVE),
    )
    found.workers, found.slots = session.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(Worker.slots), 0)).where(is_alive(alive_seconds))
    ).one()
    found.busy_slots = _count(
        session,
        sa.select(sa.func.count())
        .select_from(Trial)
        .join(Worker, Worker.id == Trial.worker_id)
        .where(_IS_RUNNING, is_alive(alive_seconds)),
    )
    alive = session.execute(sa.select(Worker.id, Worker.name, Worker.device).where(is_alive(alive_seconds))).all()
    lately = busyness.of_workers(session, [row.id for row in alive])
    found.busyness = [(row.name, row.device["model"], lately[row.id]) for row in alive]
    found.deliveries, found.deliveries_seconds = _waiting(session, _DELIVERIES)
    return found


_QUEUE_LABELS = (
    "project",
    "priority",
    "runtime",
    "version",
    "device_model",
    "compute_capability",
    "devices",
    "memory_bytes",
    "labels",
    "cause",
)


def _queue_labels(waiting: QueueEntry) -> list[str]:
    """What waiting trials need, and why nothing takes them; empty if that is not known, or if they are taken."""
    values = (
        waiting.project,
        waiting.priority,
        waiting.runtime,
        waiting.version,
        waiting.device_model,
        waiting.compute_capability,
        waiting.devices,
        waiting.device_memory_bytes,
        shown_labels(waiting.labels),
        waiting.cause,
    )
    return ["" if each is None else str(each) for each in values]


def _queue(entries: Sequence[QueueEntry]) -> Iterable[Metric]:
    depth = GaugeMetricFamily(
        "layersweep_queue_trials", "Queued trials of active sweeps by what they need.", labels=_QUEUE_LABELS
    )
    age = GaugeMetricFamily(
        "layersweep_queue_oldest_seconds", "Since the oldest of them was asked for.", labels=_QUEUE_LABELS
    )
    slots = GaugeMetricFamily(
        "layersweep_queue_slots", "Slots of the living workers that may take them.", labels=_QUEUE_LABELS
    )
    wanted = GaugeMetricFamily(
        "layersweep_queue_wanted_slots",
        "Slots that the sweeps could use at once, free or not: what runs and waits.",
        labels=_QUEUE_LABELS,
    )
    for entry in entries:
        labels = _queue_labels(entry)
        depth.add_metric(labels, entry.queued)
        age.add_metric(labels, entry.oldest_seconds or 0.0)
        slots.add_metric(labels, entry.slots)
        wanted.add_metric(labels, entry.wanted_slots)
    yield from (depth, age, slots, wanted)


def _busyness(workers: Iterable[tuple[str, str, Busyness]]) -> Iterable[Metric]:
    labels = ["worker", "device_model"]
    device = GaugeMetricFamily(
        "layersweep_device_busy_share", "Of the last ten minutes, in which a worker's device was held.", labels=labels
    )
    slots = GaugeMetricFamily(
        "layersweep_slots_busy_share", "Of the time of a worker's slots in the last ten minutes.", labels=labels
    )
    used = GaugeMetricFamily(
        "layersweep_device_used_share",
        "In which a worker's device computed, as the worker says it of its last minutes.",
        labels=[*labels, "source"],
    )
    for name, model, lately in workers:
        device.add_metric([name, model], lately.device)
        slots.add_metric([name, model], lately.slots)
        if lately.use is not None:
            used.add_metric([name, model, lately.use["source"]], lately.use["busy_share"])
    yield from (device, slots, used)


class Gauges:
    """A collector of `prometheus_client`: reads the figures of one database whenever it is asked."""

    def __init__(self, database: Database, alive_seconds: float) -> None:
        self._database = database
        self._alive_seconds = alive_seconds

    def collect(self) -> Iterable[Metric]:
        found, waiting = self._database.read(
            lambda session: (
                read_figures(session, self._alive_seconds),
                queue_by_needs.entries(session, None, self._alive_seconds),
            )
        )
        yield _by_state("layersweep_sweeps", "Sweeps by state.", SweepState, found.sweeps)
        yield _by_state("layersweep_trials", "Trials by state.", TrialState, found.trials)
        yield _gauge("layersweep_queue_depth", "Queued trials of active sweeps.", found.waiting)
        yield from _queue(waiting)
        yield _gauge("layersweep_leases", "Trials that a worker holds.", found.trials[TrialState.RUNNING])
        yield _gauge(
            "layersweep_leases_lapsed", "Of active sweeps, those whose worker was silent for too long.", found.lapsed
        )
        yield _gauge(
            "layersweep_scheduler_events_waiting", "Ended trials that no scheduler has processed.", found.unscheduled
        )
        yield _gauge(
            "layersweep_scheduler_oldest_seconds", "Since the oldest of them ended.", found.unscheduled_seconds
        )
        yield _gauge("layersweep_workers_alive", "Workers that were heard of lately.", found.workers)
        yield _gauge("layersweep_worker_slots", "Attempts that these execute at once, at most.", found.slots)
        yield _gauge("layersweep_worker_slots_busy", "Of these slots, those that execute a trial.", found.busy_slots)
        yield from _busyness(found.busyness)
        yield _gauge("layersweep_webhook_deliveries_pending", "Deliveries that are to be sent.", found.deliveries)
        yield _gauge(
            "layersweep_webhook_oldest_seconds", "Since the oldest of them was written.", found.deliveries_seconds
        )
        yield _gauge("layersweep_writer_waiting", "Writes that wait for this process's writer.", self._database.waiting)


def _waiting(session: Session, query: sa.Select[int, float]) -> tuple[int, float]:
    """How many wait, and the seconds since the oldest of them; none is 0 seconds old."""
    waiting, seconds = session.execute(query).one()
    return waiting, max(0.0, seconds or 0.0)


def _count(session: Session, query: sa.Select[int]) -> int:
    return session.scalars(query).one()


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _by_state(name: str, words: str, states: Iterable[str], counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=["state"])
    for state in states:
        family.add_metric([state], counts.get(state, 0))
    return family
