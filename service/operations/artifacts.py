"""Artifacts: what a front trial's attempt leaves to be deployed, kept with its hash where `artifacts_url` says.

An upload is fenced like every write of a worker: by the trial, its attempt and the state `running`. Files of an attempt
that was lost are never shown, and cleared away by `tidy`, as are those of trials that have left the front.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import fsspec
import sqlalchemy as sa
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from sqlalchemy.orm import Session, aliased

from layers.expressions.metric_names import MetricNames
from layers.metrics import Goal
from service.common.states import GOING_SWEEPS, OPEN_TRIALS, SweepKind, TrialState
from service.database.models import IS_SEARCH, Artifact, Sweep, Trial
from service.database.sessions import Database, now
from service.errors import LeaseLostError, NotFoundError, UnavailableError, UnprocessableError
from service.leases import worker_reports
from service.leases.feasibility import constraint_violations
from service.leases.statements import TRAINING_STATE
from service.operations import data_folder
from service.operations import schemas as artifact_schemas
from service.recommendation.choice import Candidate, candidate_of, front_of, goals_of
from service.settings import Settings

_log = logging.getLogger(__name__)

NAMES = (
    "configuration.json",
    "weights.safetensors",
    "model.onnx",
    "model.engine",
    "loss.engine",
    "prefill.onnx",
    "prefill.engine",
    "decode.onnx",
    "decode_1.engine",
    "decode_2.engine",
    "decode_3.engine",
    "decode.engine",
    "validation.npz",
    "run.py",
    "README.md",
)
"""What a worker may leave; those of a prompt and of steps, if texts are generated."""
CHUNK_BYTES = 1 << 20


def is_wanted(session: Session, settings: Settings, trial_id: str, attempt: int, metrics: dict[str, float]) -> bool:
    """Whether a trial that would finish with these metrics is to be kept: on its sweep's front, or of a confirmation.

    Raises LeaseLostError, and UnprocessableError for metrics that `worker_reports` refuses.
    """
    trial = _held(session, trial_id, attempt)
    sweep = session.get_one(Sweep, trial.sweep_id)
    names = MetricNames.of_shapes(trial.configuration.get("shapes", []))
    metrics = worker_reports.checked_metrics(
        metrics, trial.metrics, names, confirms=sweep.kind is SweepKind.CONFIRMATION
    )
    if settings.artifacts == "none" or trial.replicate_of is not None:
        return False
    if sweep.kind is SweepKind.CONFIRMATION:
        return True
    goals: dict[str, Goal] = goals_of(sweep)
    known = {**trial.metrics, **metrics}
    violations = constraint_violations(list(sweep.document.get("constraints", [])), trial.configuration, known)
    new = Candidate(trial.id, trial.number, known, True, violations)
    front = session.scalars(sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1))
    return any(member.id == new.id for member in front_of([*map(candidate_of, front), new], goals))


def check_name(name: str) -> None:
    """Raise UnprocessableError unless it is one of `NAMES`, or the state of a training."""
    if name not in (*NAMES, TRAINING_STATE):
        raise UnprocessableError(f"{name!r} is no artifact: one of {', '.join(NAMES)}")


def check_held(session: Session, trial_id: str, attempt: int) -> None:
    """Raise LeaseLostError unless the attempt holds its trial."""
    _held(session, trial_id, attempt)


def store(
    database: Database, settings: Settings, trial_id: str, attempt: int, name: str, file: Path, sha256: str
) -> None:
    """Keep a file that has arrived whole. Raises LeaseLostError, and then everything is as it was.

    What is kept lies where its hash says, so nothing that is kept already is ever written over.
    """
    files, root = _files(settings)
    place = _ArtifactPath(trial_id, attempt, name, sha256)
    _write(files, file, place.path(root))
    size = file.stat().st_size

    def write(session: Session) -> _ArtifactPath | None:
        _held(session, trial_id, attempt)
        known = session.get(Artifact, (trial_id, name))
        replaced = None if known is None else _ArtifactPath.of(known)
        row = {"attempt": attempt, "size_bytes": size, "sha256": sha256, "created_at": now(session)}
        session.merge(Artifact(trial_id=trial_id, name=name, **row))
        return replaced

    try:
        replaced = database.write(write)
    except LeaseLostError:
        if not database.read(lambda session: _is_kept(session, place)):
            _remove(files, place.path(root))
        raise
    if replaced is not None and replaced != place:
        _remove(files, replaced.path(root), replaced.earlier_path(root))


def of_trial(session: Session, trial_id: str) -> list[Artifact]:
    """The artifacts of a complete trial by name; of a reused one, those of the trial that was executed."""
    trial = session.get(Trial, trial_id)
    if trial is None:
        raise NotFoundError(f"there is no trial {trial_id}")
    source = trial if trial.reused_from is None else session.get(Trial, trial.reused_from) or trial
    if source.state != TrialState.COMPLETE:
        return []
    query = sa.select(Artifact).where(
        # Without the state of a training, which is for the trial's own attempts.
        Artifact.trial_id == source.id,
        Artifact.attempt == source.attempt,
        Artifact.name.in_(NAMES),
    )
    return sorted(session.scalars(query), key=lambda row: NAMES.index(row.name))


def find(session: Session, trial_id: str, name: str) -> Artifact:
    """Raises NotFoundError with the reason."""
    rows = of_trial(session, trial_id)
    for row in rows:
        if row.name == name:
            return row
    if rows:
        names = ", ".join(row.name for row in rows)
        raise NotFoundError(f"trial {trial_id} has no artifact {name!r}; it has: {names}")
    is_probe = session.get_one(Trial, trial_id).configuration.get("task") == "probe"
    why = "a probe has random weights and leaves none" if is_probe else "they are kept of complete trials on the front"
    raise NotFoundError(f"trial {trial_id} has no artifacts: {why}")


def training_state(session: Session, trial_id: str, attempt: int) -> Artifact:
    """The state of the training that the attempt goes on from. Raises LeaseLostError, NotFoundError."""
    _held(session, trial_id, attempt)
    row = session.get(Artifact, (trial_id, TRAINING_STATE))
    if row is None:
        raise NotFoundError(f"the state of the training of trial {trial_id} is not kept: train from the beginning")
    return row


def read(settings: Settings, row: Artifact) -> Iterator[bytes]:
    """The bytes of an artifact, piece by piece. Raises NotFoundError before the first if the store has lost it."""
    files, root = _files(settings)
    place = _ArtifactPath.of(row)
    for path in (place.path(root), place.earlier_path(root)):
        with contextlib.suppress(FileNotFoundError):
            return _pieces(files.open(path, "rb"))
    raise NotFoundError(f"{row.name} of trial {row.trial_id} is not in the store of artifacts any more")


def to_schema(row: Artifact) -> artifact_schemas.Artifact:
    return artifact_schemas.Artifact.model_validate(row)


def collect_garbage(database: Database, settings: Settings) -> int:
    """Delete what is not to be kept: of trials off the front, of lost attempts, and of old age. Returns how many."""
    dropped = database.write(lambda session: _drop(session, settings))
    files, root = _files(settings)
    for place in dropped:
        _remove(files, place.path(root), place.earlier_path(root))
    return len(dropped) + (_clear_orphans(database, files, root) if _are_its_files(database, settings) else 0)


def count_garbage(database: Database, settings: Settings) -> int:
    """How many `collect_garbage` would delete now."""

    def read(session: Session) -> int:
        return session.scalars(sa.select(sa.func.count()).select_from(_unwanted(session, settings).subquery())).one()

    count = database.read(read)
    if _are_its_files(database, settings):
        orphans, _ = _orphans(database, *_files(settings))
        count += len(orphans)
    return count


def _are_its_files(database: Database, settings: Settings) -> bool:
    """Whether the data folder is this database's: in another's, files that no row names are not to be cleared away."""
    try:
        data_folder.check(database, settings)
    except UnavailableError as problem:
        _log.warning("files that no trial names are kept: %s", problem)
        return False
    return True


def _pieces(opened: Any) -> Iterator[bytes]:
    with opened:
        while piece := opened.read(CHUNK_BYTES):
            yield piece


def _held(session: Session, trial_id: str, attempt: int) -> Trial:
    trial = session.scalar(
        sa.select(Trial)
        .where(Trial.id == trial_id, Trial.attempt == attempt, Trial.state == TrialState.RUNNING)
        .execution_options(populate_existing=True)
    )
    if trial is None:
        raise LeaseLostError(f"attempt {attempt} of trial {trial_id} does not run")
    return trial


def _unwanted(session: Session, settings: Settings) -> sa.Select[Artifact]:
    again = aliased(Trial)
    reused = sa.select(again.id).where(again.reused_from == Trial.id, again.pareto_rank == 1).exists()
    left_the_front = sa.and_(
        IS_SEARCH,
        Trial.state == TrialState.COMPLETE,
        sa.or_(Trial.pareto_rank > 1, sa.and_(Trial.pareto_rank.is_(None), Sweep.state.not_in(GOING_SWEEPS))),
        ~reused,
    )
    # A stopped training may go on from its state, in a later attempt.
    goes_on = sa.and_(
        Artifact.name == TRAINING_STATE,
        sa.or_(Trial.state == TrialState.PRUNED, sa.and_(Trial.promoted, Trial.state.in_(OPEN_TRIALS))),
    )
    reasons: list[sa.ColumnElement[bool]] = [
        left_the_front,
        sa.and_(
            Trial.state.in_((TrialState.INFEASIBLE, TrialState.PRUNED, TrialState.FAILED, TrialState.CANCELLED)),
            ~goes_on,
        ),
        sa.and_(Artifact.attempt != Trial.attempt, ~goes_on),
    ]
    if settings.artifact_days:
        reasons.append(Artifact.created_at < now(session) - settings.artifact_days * 86_400)
    return (
        sa.select(Artifact)
        .join(Trial, Trial.id == Artifact.trial_id)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(sa.or_(*reasons))
    )


def _drop(session: Session, settings: Settings) -> list[_ArtifactPath]:
    # Another process may tidy at the same time: what it deletes is passed by here.
    rows = session.scalars(_unwanted(session, settings).with_for_update(of=Artifact, skip_locked=True)).all()
    dropped = [_ArtifactPath.of(row) for row in rows]
    for row in rows:
        session.delete(row)
    return dropped


def _clear_orphans(database: Database, files: AbstractFileSystem, root: str) -> int:
    """Remove what no row names: of deleted sweeps, of uploads that were cut off or came too late. Counts files."""
    orphans, running = _orphans(database, files, root)
    for path in orphans:
        _remove(files, path)
    if isinstance(files, LocalFileSystem) and files.exists(root):
        _remove_empty_folders(Path(root), running)
    return len(orphans)


def _orphans(database: Database, files: AbstractFileSystem, root: str) -> tuple[list[str], set[str]]:
    """The files that no row names, and the trials that run: what these have is no orphan, it may be arriving."""
    if not files.exists(root):
        return [], set()
    # In this order: a file that is seen here has a row by the last look, or its trial runs at the second one, or it is
    # kept for nobody.
    found = {_relative(str(path), root): str(path) for path in files.find(root)}
    running = database.read(
        lambda session: set(session.scalars(sa.select(Trial.id).where(Trial.state == TrialState.RUNNING)))
    )
    rows = database.read(lambda session: session.scalars(sa.select(Artifact)).all())
    named = {each for place in map(_ArtifactPath.of, rows) for each in (place.path(""), place.earlier_path(""))}
    return [found[path] for path in found if path not in named and path.split("/")[1] not in running], running


def _remove_empty_folders(root: Path, running: Collection[str]) -> None:
    """Remove the folders of trials that do not run, as far as nothing is in them. (A store of objects has none.)"""
    for of_trial in root.iterdir():
        if of_trial.name not in running:
            for folder, _, _ in os.walk(of_trial, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


@dataclass(frozen=True, slots=True)
class _ArtifactPath:
    """Where an artifact lies in the store."""

    trial_id: str
    attempt: int
    name: str
    sha256: str

    @classmethod
    def of(cls, row: Artifact) -> _ArtifactPath:
        return cls(row.trial_id, row.attempt, row.name, row.sha256)

    def path(self, root: str) -> str:
        return f"{root}/{self.trial_id}/{self.attempt}/{self.sha256[:16]}/{self.name}"

    def earlier_path(self, root: str) -> str:
        """Where releases before this layout put it."""
        return f"{root}/{self.trial_id}/{self.attempt}/{self.name}"


def _is_kept(session: Session, place: _ArtifactPath) -> bool:
    row = session.get(Artifact, (place.trial_id, place.name))
    return row is not None and _ArtifactPath.of(row) == place


def _write(files: AbstractFileSystem, file: Path, path: str) -> None:
    """Put the file there, whole or not at all. Stores of objects do so by themselves; a folder needs a move."""
    folder, _, name = path.rpartition("/")
    files.makedirs(folder, exist_ok=True)
    if not isinstance(files, LocalFileSystem):
        files.put_file(str(file), path)
        return
    part = Path(folder) / f".{name}.{secrets.token_hex(8)}.part"
    try:
        try:
            files.put_file(str(file), str(part))
        except FileNotFoundError:
            # What clears garbage away found the folder empty.
            files.makedirs(folder, exist_ok=True)
            files.put_file(str(file), str(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _remove(files: AbstractFileSystem, *paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(path)


def _relative(path: str, root: str) -> str:
    """The path below the root, with a slash before it: stores differ in how they begin their paths."""
    return "/" + path.strip("/").removeprefix(root.strip("/")).strip("/")


def _files(settings: Settings) -> tuple[AbstractFileSystem, str]:
    files, root = fsspec.url_to_fs(settings.artifacts_url)
    return cast("AbstractFileSystem", files), str(root).rstrip("/")
