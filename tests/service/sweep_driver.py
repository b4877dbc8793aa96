"""Sweeps driven without processes: documents, a data set's row, and the one pretend worker of these tests.

The worker claims through `service.leases.queue` as a real one does, and finishes at once with metrics that are
calculated by a formula from the trial's configuration: nothing is built, measured or trained. All else is the service's
own code.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from service.common.ids import new_id
from service.common.states import GOING_SWEEPS
from service.database.models import Ask, Dataset, Event, StudyAttribute, Sweep, Trial, Worker
from service.database.sessions import Database, now
from service.events import events
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.sweeps import drafts, sweeps
from service.sweeps import schemas as sweep_schemas
from tests.service.registrations import register

DOCUMENT: dict[str, Any] = {
    "name": "a sweep",
    "task": "causal_lm",
    "dataset": "letters",
    "model": {
        "num_layers": {"min": 1, "max": 8},
        "hidden_size": {"values": [32, 48, 64, 96]},
        "attention": {
            "num_attention_heads": {"values": [2, 4]},
            "position_embedding_type": {"values": ["learned_absolute", "rope_gpt_neox"]},
        },
        "norm": {
            "kind": {"values": ["LayerNorm", "RmsNorm"]},
            "eps": {"min": 1e-8, "max": 1e-4, "log": True, "when": "norm.kind == 'RmsNorm'"},
        },
        "mlp": {"ffn_hidden_size": {"derived": "4 * hidden_size"}},
    },
    "training": {
        "steps": 10,
        "batch_size": 4,
        "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
        "dropout": {"min": 0.0, "max": 0.5, "step": 0.1},
    },
    "inference": {"batch_size": 1, "sequence_length": 16},
    "objectives": [
        {"metric": "latency_ms_p50", "goal": "minimize"},
        {"metric": "validation_loss", "goal": "minimize"},
    ],
    "constraints": ["parameter_count <= 5e5", "latency_ms_p99 <= 12", "validation_loss <= 2.5"],
    "budget": {"trials": 1000, "parallel": 2, "failures": 1000},
    "search": {"sampler": "random", "seed": 7, "reuse": False},
}

TWELVE_POINTS: dict[str, Any] = {
    "num_layers": {"min": 1, "max": 3},
    "hidden_size": {"values": [32, 64]},
    "attention": {"num_attention_heads": {"values": [2, 4]}},
}

Outcome = tuple[str, dict[str, float]]
Measure = Callable[[Mapping[str, Any]], Outcome]


def document(**changes: Any) -> dict[str, Any]:
    """DOCUMENT with some of its fields set; mappings are merged into it, except `model`."""
    changed = copy.deepcopy(DOCUMENT)
    for name, value in changes.items():
        merged = isinstance(value, dict) and name in changed and name != "model"
        changed[name] = changed[name] | value if merged else value
    return changed


def small(**changes: Any) -> dict[str, Any]:
    """A space of twelve points, without constraints."""
    return document(model=TWELVE_POINTS, training={"learning_rate": 1e-3, "dropout": 0.0}, constraints=[], **changes)


def formula(configuration: Mapping[str, Any]) -> Outcome:
    """Metrics that depend on the configuration alone; now and then a trial is slow, pruned or fails."""
    model, training = configuration["model"], configuration["training"]
    size = model["num_layers"] * model["hidden_size"]
    latency = size / 32 + 0.25 * model["attention.num_attention_heads"]
    loss = 4 / (1 + size / 200) + abs(training["learning_rate"] - 1e-3) * 50 + training["dropout"]
    metrics = {"latency_ms_p50": latency, "latency_ms_p99": latency * 1.2}
    if latency * 1.2 > 12:
        return "infeasible", metrics
    kind = size // 32 % 11
    if kind == 7:
        return "pruned", metrics
    if kind == 9:
        return "failed", {}
    return "complete", metrics | {"validation_loss": loss, "memory_bytes": size * 1000.0}


class Driver:
    """A database with a data set, sweeps in it, and a scheduler that is stepped by hand."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        # A scheduler that is thrown away here never says so: the next one need not wait for its lease to end.
        self.settings = settings.model_copy(update={"leader_seconds": 1e-9})
        self.scheduler = self.new_scheduler()
        self.worker = ""
        self._prepared: dict[str, drafts.ValidatedDocument] = {}

    def new_scheduler(self) -> Scheduler:
        return Scheduler(self.database, self.database.notifications, self.settings)

    def add_dataset(self, name: str = "letters", sha256: str = "a" * 64) -> None:
        def write(session: Any) -> None:
            session.add(
                Dataset(
                    id=new_id(),
                    name=name,
                    task="causal_lm",
                    tokenizer="char",
                    sha256=sha256,
                    size_bytes=1000,
                    facts={"vocabulary_size": 64},
                    parts={"training": {"tokens": 900, "sha256": "b" * 64}},
                    profile={},
                    created_at=now(session),
                )
            )

        self.database.write(write)

    def add_worker(
        self, name: str = "worker", versions: Mapping[str, str] | None = None, *, slots: int = 64, **changes: Any
    ) -> str:
        return register(self.database, name, versions, slots=slots, **changes)

    def post(self, written: dict[str, Any]) -> str:
        """Store a sweep as the route does; the same document is measured for feasibility once. Returns its id."""
        key = json.dumps(written, sort_keys=True)
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = drafts.prepare(self.database, written)
        return self.database.write(lambda session: sweeps.insert(session, prepared)).id

    def step(self, sweep_id: str) -> bool:
        return self.scheduler.step(sweep_id)

    def claim(self) -> lease_schemas.Lease | None:
        self.worker = self.worker or self.add_worker()
        return self.database.write(lambda session: queue.claim(session, self.worker, 30))

    def finish(self, lease: lease_schemas.Lease, measure: Measure = formula) -> None:
        outcome, metrics = measure(lease.configuration)
        body = lease_schemas.LeaseFinish(
            outcome=outcome, metrics=metrics, reason=None if outcome == "complete" else "made to fail"
        )  # type: ignore[arg-type]
        self.database.write(lambda session: holders.finish(session, lease.trial, lease.attempt, body).id)

    def run(self, sweep_id: str, trials: int, measure: Measure = formula, *, rebuild_every: int = 0) -> None:
        """End `trials` trials one after the other, each worked in at once; every so often by a new scheduler."""
        self.worker = self.worker or self.add_worker()
        for number in range(trials):
            if rebuild_every and number % rebuild_every == rebuild_every - 1:
                self.scheduler = self.new_scheduler()
            self.step(sweep_id)
            lease = self.claim()
            if lease is None:
                break
            self.finish(lease, measure)
        self.step(sweep_id)

    def run_to_the_end(self, sweep_id: str, measure: Measure = formula) -> Sweep:
        """Work as long as there is a trial to claim."""
        self.worker = self.worker or self.add_worker()
        self.step(sweep_id)
        while (lease := self.claim()) is not None:
            self.finish(lease, measure)
            self.step(sweep_id)
        return self.sweep(sweep_id)

    def cancel(self, sweep_id: str) -> None:
        """End the sweep, if it still goes on."""
        if self.sweep(sweep_id).state in GOING_SWEEPS:
            self.database.write(lambda session: sweeps.cancel(session, sweep_id).id)
            self.step(sweep_id)

    def set(self, sweep_id: str, **values: Any) -> None:
        """Set columns of the sweep's row."""
        statement = sa.update(Sweep).where(Sweep.id == sweep_id).values(**values)
        self.database.write(lambda session: session.execute(statement).rowcount)  # type: ignore[attr-defined]

    def set_worker(self, worker_id: str, **values: Any) -> None:
        """Set columns of a worker's row."""
        statement = sa.update(Worker).where(Worker.id == worker_id).values(**values)
        self.database.write(lambda session: session.execute(statement).rowcount)  # type: ignore[attr-defined]

    def sweep(self, sweep_id: str) -> Sweep:
        return self.database.read(lambda session: session.get_one(Sweep, sweep_id))

    def shown(self, sweep_id: str) -> sweep_schemas.SweepDetail:
        return self.database.read(lambda session: sweeps.detail(session, sweeps.get(session, sweep_id)))

    def trials(self, sweep_id: str) -> list[Trial]:
        query = sa.select(Trial).where(Trial.sweep_id == sweep_id).order_by(Trial.number)
        return self.database.read(lambda session: list(session.scalars(query)))

    def asks(self, sweep_id: str) -> list[Ask]:
        query = sa.select(Ask).where(Ask.sweep_id == sweep_id).order_by(Ask.ask)
        return self.database.read(lambda session: list(session.scalars(query)))

    def events(self, sweep_id: str) -> list[Event]:
        return list(self.database.read(lambda session: events.read(session, sweep_id, 0, 100_000)))

    def attributes(self, sweep_id: str) -> dict[str, Any]:
        query = sa.select(StudyAttribute).where(StudyAttribute.sweep_id == sweep_id)
        return self.database.read(lambda session: {row.name: row.value for row in session.scalars(query)})

    def sequence(self, sweep_id: str) -> list[tuple[dict[str, Any], str | None]]:
        """What the sampler suggested, in order, with what was not made a trial."""
        return [(ask.suggestions, ask.rejection) for ask in self.asks(sweep_id)]
