"""The tables of datasets, workers, sweeps and their trials.

Every time is seconds since the epoch by the *database's* clock (`service.database.sessions.now`).

Ownership: leases (`Trial.attempt`, `charged_attempts`, `worker_id`, `lease_expires_at`, `state` while it runs) are
written by `queue`, `holders` and `transitions` alone; `Ask` and new rows of `Trial` by `scheduler` alone, fenced by the
sweep's `leader_epoch`; `Event` by `service.events.events` alone.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, validates

from layers.configuration import Configuration
from layers.parameter import Scalar
from layers.space.document_fields import Budget, Objective
from layers.space.normalized_document import NormalizedDocument
from layersweep.json_values import JsonObject
from service.common.noise import StoredNoise
from service.common.states import SweepKind, SweepState, TrialState
from service.database.base import Base, Document, OneOf, one_of
from service.database.dataset_columns import Facts, Profile, StoredSplit
from service.database.json_columns import (
    AttributeValue,
    DeviceFacts,
    Distribution,
    EventData,
    Losses,
    PhaseTime,
    PredictedHardware,
    RegisteredTarget,
    ReportedDeviceUse,
    SpaceFacts,
    Told,
    TransferFacts,
)

ASK_STATES = ("asked", "told")


class Dataset(Base):
    """Registered data of one task kind. Its arrays lie as NPZ files under the data folder, named by `sha256`."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), default="default")
    name: Mapped[str] = mapped_column(String(128))
    task: Mapped[str] = mapped_column(String(32))
    tokenizer: Mapped[str | None] = mapped_column(String(32))
    builtin: Mapped[bool] = mapped_column(Boolean, default=False)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the arrays of all splits: the same data registered twice has the same hash."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    facts: Mapped[Facts] = mapped_column(Document)
    """What a model needs to know: vocabulary_size, classes, sequence_length if it is fixed."""
    parts: Mapped[dict[str, StoredSplit]] = mapped_column(Document)
    """{"training": {"tokens": n, "sha256": ...}, "validation": {...}, "test": {...}}; absent splits are left out."""
    profile: Mapped[Profile] = mapped_column(Document)
    created_at: Mapped[float]


class Worker(Base):
    """A process that owns one device and executes leases."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    project: Mapped[str | None] = mapped_column(String(64))
    """The project whose trials it may claim; None: those of all projects."""
    name: Mapped[str] = mapped_column(String(128))
    device: Mapped[DeviceFacts] = mapped_column(Document)
    device_uuid: Mapped[str] = mapped_column(String(128), index=True)
    targets: Mapped[list[RegisteredTarget]] = mapped_column(Document)
    """The capabilities of each target that it serves, each with its `key`."""
    versions: Mapped[dict[str, str]] = mapped_column(Document)
    labels: Mapped[dict[str, str]] = mapped_column(Document, default=dict, server_default="{}")
    """What its owner says of it: a sweep may ask for them."""
    slots: Mapped[int] = mapped_column(default=1, server_default="1")
    """How many attempts it executes at once, at most."""
    device_use: Mapped[ReportedDeviceUse | None] = mapped_column(Document)
    """What it said last of how busy its device was; None before that."""
    registered_at: Mapped[float]
    last_seen_at: Mapped[float]
    signed_off_at: Mapped[float | None]
    """When it stopped in good order; None for one that works, or was killed."""


class Sweep(Base):
    """What a user posted. The document is immutable; budget, state and the scheduler's bookkeeping change."""

    __tablename__ = "sweeps"
    __table_args__ = (
        CheckConstraint(one_of("state", tuple(SweepState)), name="state"),
        Index(None, "project", "id"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), default="default")
    name: Mapped[str] = mapped_column(String(200))
    task: Mapped[str] = mapped_column(String(32))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    document: Mapped[NormalizedDocument] = mapped_column(Document)
    """The document as it was understood: parsed, defaults of the document's own fields filled in."""
    source: Mapped[str | None] = mapped_column(Text, deferred=True)
    """The YAML as it was posted, with its comments; None of JSON, and of a sweep of an older version."""
    objectives: Mapped[list[Objective]] = mapped_column(Document)
    budget: Mapped[Budget] = mapped_column(Document)
    sampler: Mapped[str] = mapped_column(String(32))
    sampler_reason: Mapped[str] = mapped_column(Text)
    pruner: Mapped[str] = mapped_column(String(8), default="none", server_default="none")
    """none, pareto or asha: by what rule trainings are stopped before their end."""
    pruner_reason: Mapped[str] = mapped_column(Text, default="", server_default="")
    space: Mapped[SpaceFacts] = mapped_column(Document)
    """As validation found it."""
    target_runtime: Mapped[str | None] = mapped_column(String(32))
    """What the document asks for; None takes the first worker that can serve the sweep."""
    labels: Mapped[dict[str, str] | None] = mapped_column(Document)
    """Those that a worker must have to be given its trials; None: it asks for none."""
    target: Mapped[RegisteredTarget | None] = mapped_column(Document)
    """The capabilities of the resolved target; None until a worker that can serve the sweep is known."""
    target_key: Mapped[str | None] = mapped_column(String(300))
    results_version: Mapped[int | None]
    """Of the resolved target: a claim compares it. None: the worker has not said it."""
    state: Mapped[SweepState] = mapped_column(OneOf(SweepState), default=SweepState.ACTIVE)
    reason: Mapped[str | None] = mapped_column(Text)
    effective_parallel: Mapped[int] = mapped_column(default=1, server_default="1")
    """How many of its trials may run at once: `budget.parallel`, or what `auto` stands for now."""
    device_seconds: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """What the attempts that were finished have taken of their devices' time."""
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    """Trials of a sweep with a higher one are given to workers first."""
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    tags: Mapped[list[str]] = mapped_column(Document, default=list, server_default="[]")
    archived: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Lists leave it out unless they are asked for it."""
    running_count: Mapped[int] = mapped_column(default=0)
    rejected_count: Mapped[int] = mapped_column(default=0)
    counts: Mapped[dict[str, int]] = mapped_column(Document, default=dict)
    """Trials by state, kept by whoever changes a trial's state, in the same transaction."""
    transfer: Mapped[TransferFacts | None] = mapped_column(Document)
    """What it starts from; None if it does not start from earlier sweeps, or has no target yet."""
    event_counter: Mapped[int] = mapped_column(default=0)
    """The last event's sequence: also the version behind the sweep's ETag."""
    scheduled_sequence: Mapped[int] = mapped_column(default=0)
    """The last event that the scheduler has worked in; written with the asks that followed from it."""
    leader_id: Mapped[str | None] = mapped_column(String(64))
    leader_epoch: Mapped[int] = mapped_column(default=0)
    leader_expires_at: Mapped[float | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]

    @validates("target")
    def _take_results_version(self, _: str, target: RegisteredTarget | None) -> RegisteredTarget | None:
        self.results_version = None if target is None else target.get("results_version")
        return target

    @property
    def kind(self) -> SweepKind:
        return SweepKind.of(self.sampler)


IS_SEARCH = Sweep.sampler != SweepKind.CONFIRMATION
IS_CONFIRMATION = Sweep.sampler == SweepKind.CONFIRMATION
"""`Sweep.kind` as conditions of a query."""


class Trial(Base):
    """One point of a space, and all that was learnt of it."""

    __tablename__ = "trials"
    __table_args__ = (
        CheckConstraint(one_of("state", tuple(TrialState)), name="state"),
        UniqueConstraint("sweep_id", "number"),
        UniqueConstraint("sweep_id", "point_hash"),
        Index(
            "ix_trials_claimable",
            "target_key",
            "id",
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        Index(
            "ix_trials_running",
            "worker_id",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index(
            "ix_trials_not_judged",
            "sweep_id",
            "state",
            sqlite_where=text("state = 'complete' AND feasible IS NULL"),
            postgresql_where=text("state = 'complete' AND feasible IS NULL"),
        ),
        Index(None, "sweep_id", "state", "number"),
        Index(None, "sweep_id", "pareto_rank", "number"),
        Index(None, "reuse_key"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    project: Mapped[str] = mapped_column(String(64), default="default")
    number: Mapped[int]
    state: Mapped[TrialState] = mapped_column(OneOf(TrialState), default=TrialState.QUEUED)
    parameters: Mapped[dict[str, Scalar]] = mapped_column(Document)
    """Path -> value of the open and derived parameters: what a leaderboard shows."""
    configuration: Mapped[Configuration] = mapped_column(Document)
    """What a worker executes: complete, defaults filled in, paths flat below each section."""
    point_hash: Mapped[str] = mapped_column(String(64))
    reuse_key: Mapped[str] = mapped_column(String(64))
    reused_from: Mapped[str | None] = mapped_column(String(26))
    started_from: Mapped[str | None] = mapped_column(String(200))
    """The start of `start_from` that this point came from."""
    replicate_of: Mapped[str | None] = mapped_column(String(26))
    """The trial of the sweep that this one trains again with another seed; None for a point of its own. A replicate's
    number counts down from -1: it has no place among the points."""
    promoted: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether somebody wants it trained to its end, though a pruner has stopped it: none does so again."""
    predicted: Mapped[PredictedHardware | None] = mapped_column(Document)
    """What stands in for a build before the training; None if the sweep's order of phases holds."""
    target_key: Mapped[str] = mapped_column(String(300))
    attempt: Mapped[int] = mapped_column(default=0)
    """The number of the newest attempt: the fencing token. Only ever grows."""
    charged_attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    worker_id: Mapped[str | None] = mapped_column(String(26))
    lease_expires_at: Mapped[float | None]
    phase: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[JsonObject | None]
    feasible: Mapped[bool | None]
    violations: Mapped[dict[str, float] | None] = mapped_column(Document)
    """Constraint -> how far it is broken (<= 0: kept)."""
    noise: Mapped[StoredNoise | None] = mapped_column(Document)
    """How certain its metrics are; None if the worker did not say. A complete trial with constraints that are
    undecided and none that is broken has no `feasible`: it cannot be judged."""
    reason: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, float]] = mapped_column(Document, default=dict)
    pareto_rank: Mapped[int | None]
    """1 is the front, `pareto.LAST_RANK` all the rest; None if not complete and feasible, or not yet ranked."""
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class TrialMetric(Base):
    """One number of a trial: a copy of `Trial.metrics` that an index can sort by."""

    __tablename__ = "trial_metrics"
    __table_args__ = (Index(None, "sweep_id", "name", "value", "trial_id"),)

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    value: Mapped[float]


class Attempt(Base):
    """One execution of a trial by one worker."""

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "worker_id", "ended_at"),)

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str] = mapped_column(ForeignKey("workers.id"))
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    """complete, infeasible, pruned, failed, cancelled, released or lost; None while it runs."""
    reason: Mapped[str | None] = mapped_column(Text)
    finish_hash: Mapped[str | None] = mapped_column(String(64))
    """Of the body of the finish that was accepted: the same finish again is answered 200."""
    after_trial_id: Mapped[str | None] = mapped_column(String(26))
    after_attempt: Mapped[int | None]
    """The attempt whose finish claimed this one; None for one that was claimed by itself."""
    phases: Mapped[list[PhaseTime]] = mapped_column(Document, default=list)
    """In order."""
    log: Mapped[str] = mapped_column(Text, default="")
    early_metrics: Mapped[dict[str, float] | None] = mapped_column(Document)
    """What was reported before anything was trained; None if nothing was."""


class Report(Base):
    """One report of a running attempt: losses at a step."""

    __tablename__ = "reports"
    __table_args__ = (
        ForeignKeyConstraint(["trial_id", "attempt"], ["attempts.trial_id", "attempts.attempt"], ondelete="CASCADE"),
    )

    trial_id: Mapped[str] = mapped_column(String(26), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    values: Mapped[Losses] = mapped_column(Document)
    created_at: Mapped[float]


class Measurement(Base):
    """What is kept beside the metrics of a finished trial: raw latency samples, environment, parity, cost."""

    __tablename__ = "measurements"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    """latency_samples_ms, latency_first, memory, parity, environment, training, ..."""
    attempt: Mapped[int]
    data: Mapped[JsonObject]


class Ask(Base):
    """One suggestion of a sampler and what it was told of it: from these rows a study is rebuilt.

    `ask` is Optuna's own trial number in the study; points that broke a rule have an ask and no trial.
    """

    __tablename__ = "asks"
    __table_args__ = (CheckConstraint(one_of("state", ASK_STATES), name="state"), Index(None, "trial_id"))

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    ask: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    trial_id: Mapped[str | None] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(String(8), default="asked")
    suggestions: Mapped[dict[str, Scalar]] = mapped_column(Document)
    """Parameter -> what the sampler chose, in the sampler's own encoding."""
    distributions: Mapped[dict[str, Distribution]] = mapped_column(Document)
    system_attrs: Mapped[JsonObject]
    """What the sampler keeps on its own trial."""
    told: Mapped[Told | None] = mapped_column(Document)
    """As Optuna was told; None until it was."""
    told_order: Mapped[int | None]
    """Counts the tells of the sweep: samplers depend on their order."""
    rejection: Mapped[str | None] = mapped_column(Text)
    """Why no trial was made of this point."""


class EarlierTrial(Base):
    """A trial of an earlier sweep that a sweep starts from, by value: the earlier one may be deleted."""

    __tablename__ = "earlier_trials"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """From the newest on."""
    from_sweep: Mapped[str] = mapped_column(String(26))
    from_trial: Mapped[str] = mapped_column(String(26))
    parameters: Mapped[dict[str, Scalar]] = mapped_column(Document)
    """Open parameter of this sweep -> the value that the trial had, as far as it had one."""
    metrics: Mapped[dict[str, float]] = mapped_column(Document)
    """Those of this sweep's objectives."""
    violations: Mapped[dict[str, float]] = mapped_column(Document)
    """Of this sweep's constraints, as `Trial.violations`."""


class StudyAttribute(Base):
    """A system attribute that a sampler keeps on its study (QMC's sequence, NSGA-II's generations)."""

    __tablename__ = "study_attributes"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    value: Mapped[AttributeValue] = mapped_column(Document)


class Event(Base):
    """What happened in a sweep, in order. `sequence` is given out inside the transaction: replay loses nothing."""

    __tablename__ = "events"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    trial_id: Mapped[str | None] = mapped_column(String(26))
    data: Mapped[EventData] = mapped_column(Document)
    created_at: Mapped[float]


class Confirmation(Base):
    """Further trainings of a sweep's best trials: a sweep of its own kind, whose attempts are given the test split."""

    __tablename__ = "confirmations"
    __table_args__ = (Index(None, "confirms"),)

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    confirms: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    """The sweep whose trials are trained again."""
    seeds: Mapped[list[int]] = mapped_column(Document)
    candidates: Mapped[list[str]] = mapped_column(Document)
    """The trials, by id: the recommended one first."""


class Artifact(Base):
    """One file that an attempt left: weights, graph, engine, ... Its bytes lie in the store of artifacts."""

    __tablename__ = "artifacts"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    attempt: Mapped[int]
    """It counts only if this is the trial's newest attempt, and the trial is complete."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
