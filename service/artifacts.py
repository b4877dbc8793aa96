"""Artifacts: what a front trial's attempt leaves to be deployed, kept with its hash where `artifacts_url` says.

An upload is fenced like every write of a worker: by the trial, its attempt and the state `running`. Files of an attempt
that was lost are never shown, and cleared away by `tidy`, as are those of trials that have left the front.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import fsspec
import sqlalchemy as sa
from fsspec.spec import AbstractFileSystem
from sqlalchemy.orm import Session, aliased

from layers.metrics import Goal
from service import schemas
from service.db import Database, now
from service.errors import LeaseLost, NotFound, Unprocessable
from service.judging import judge
from service.models import CONFIRMATION, Artifact, Sweep, Trial
from service.recommendation.choice import Candidate, front_of
from service.recommendation.recommend import candidate_of, goals_of
from service.settings import Settings

NAMES = (
    "configuration.json",
    "weights.safetensors",
    "model.onnx",
    "model.engine",
    "loss.engine",
    "validation.npz",
    "run.py",
)
CHUNK_BYTES = 1 << 20


def is_wanted(session: Session, settings: Settings, trial_id: str, attempt: int, metrics: dict[str, float]) -> bool:
    """Whether a trial that would finish with these metrics is to be kept: on its sweep's front, or of a confirmation.

    Raises LeaseLost.
    """
    trial = _held(session, trial_id, attempt)
    if settings.artifacts == "none":
        return False
    sweep = session.get_one(Sweep, trial.sweep_id)
    if sweep.sampler == CONFIRMATION:
        return True
    goals: dict[str, Goal] = goals_of(sweep)
    known = {**trial.metrics, **metrics}
    violations = judge(list(sweep.document.get("constraints", [])), trial.configuration, known)
    new = Candidate(trial.id, trial.number, known, True, violations)
    front = session.scalars(sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1))
    return any(member.id == new.id for member in front_of([*map(candidate_of, front), new], goals))


def check_name(name: str) -> None:
    """Raise Unprocessable unless it is one of `NAMES`."""
    if name not in NAMES:
        raise Unprocessable(f"{name!r} is no artifact: one of {', '.join(NAMES)}")


def check_held(session: Session, trial_id: str, attempt: int) -> None:
    """Raise LeaseLost unless the attempt holds its trial."""
    _held(session, trial_id, attempt)


def store(
    database: Database, settings: Settings, trial_id: str, attempt: int, name: str, file: Path, sha256: str
) -> None:
    """Keep a file that has arrived whole. Raises LeaseLost, and then nothing is kept."""
    files, root = _files(settings)
    path = f"{root}/{trial_id}/{attempt}/{name}"
    files.makedirs(f"{root}/{trial_id}/{attempt}", exist_ok=True)
    files.put_file(str(file), path)
    size = file.stat().st_size

    def write(session: Session) -> None:
        _held(session, trial_id, attempt)
        row = {"attempt": attempt, "size_bytes": size, "sha256": sha256, "created_at": now(session)}
        session.merge(Artifact(trial_id=trial_id, name=name, **row))

    try:
        database.write(write)
    except LeaseLost:
        files.rm_file(path)
        raise


def of_trial(session: Session, trial_id: str) -> list[Artifact]:
    """The artifacts of a complete trial by name; of a reused one, those of the trial that was executed."""
    trial = session.get(Trial, trial_id)
    if trial is None:
        raise NotFound(f"there is no trial {trial_id}")
    source = trial if trial.reused_from is None else session.get(Trial, trial.reused_from) or trial
    if source.state != "complete":
        return []
    query = sa.select(Artifact).where(Artifact.trial_id == source.id, Artifact.attempt == source.attempt)
    return sorted(session.scalars(query), key=lambda row: NAMES.index(row.name))


def find(session: Session, trial_id: str, name: str) -> Artifact:
    """Raises NotFound with the reason."""
    rows = of_trial(session, trial_id)
    for row in rows:
        if row.name == name:
            return row
    raise NotFound(
        f"trial {trial_id} has no artifact {name!r}; it has: {', '.join(row.name for row in rows)}"
        if rows
        else f"trial {trial_id} has no artifacts: they are kept of complete trials on the front"
    )


def read(settings: Settings, row: Artifact) -> Iterator[bytes]:
    """The bytes of an artifact, piece by piece. Raises NotFound before the first where the store has lost it."""
    files, root = _files(settings)
    try:
        opened = files.open(f"{root}/{row.trial_id}/{row.attempt}/{row.name}", "rb")
    except FileNotFoundError:
        raise NotFound(f"{row.name} of trial {row.trial_id} is not in the store of artifacts any more") from None
    return _pieces(opened)


def to_schema(row: Artifact) -> schemas.Artifact:
    return schemas.Artifact.model_validate(row)


def tidy(database: Database, settings: Settings) -> int:
    """Delete what is not to be kept: of trials off the front, of lost attempts, and of old age. Returns how many."""
    dropped = database.write(lambda session: _drop(session, settings))
    files, root = _files(settings)
    for trial_id, attempt, name in dropped:
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(f"{root}/{trial_id}/{attempt}/{name}")
    return len(dropped) + _clear_orphans(database, files, root)


def _pieces(opened: Any) -> Iterator[bytes]:
    with opened:
        while piece := opened.read(CHUNK_BYTES):
            yield piece


def _held(session: Session, trial_id: str, attempt: int) -> Trial:
    trial = session.scalar(
        sa.select(Trial)
        .where(Trial.id == trial_id, Trial.attempt == attempt, Trial.state == "running")
        .execution_options(populate_existing=True)
    )
    if trial is None:
        raise LeaseLost(f"attempt {attempt} of trial {trial_id} does not run")
    return trial


def _drop(session: Session, settings: Settings) -> list[tuple[str, int, str]]:
    again = aliased(Trial)
    reused = sa.select(again.id).where(again.reused_from == Trial.id, again.pareto_rank == 1).exists()
    left_the_front = sa.and_(
        Sweep.sampler != CONFIRMATION,
        Trial.state == "complete",
        sa.or_(Trial.pareto_rank > 1, sa.and_(Trial.pareto_rank.is_(None), Sweep.state.not_in(("active", "paused")))),
        ~reused,
    )
    reasons = [
        left_the_front,
        Trial.state.in_(("infeasible", "pruned", "failed", "cancelled")),
        Artifact.attempt != Trial.attempt,
    ]
    if settings.artifact_days:
        reasons.append(Artifact.created_at < now(session) - settings.artifact_days * 86_400)
    rows = session.scalars(
        sa.select(Artifact)
        .join(Trial, Trial.id == Artifact.trial_id)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(sa.or_(*reasons))
        # Another process may tidy at the same time: what it deletes is passed by here.
        .with_for_update(of=Artifact, skip_locked=True)
    ).all()
    dropped = [(row.trial_id, row.attempt, row.name) for row in rows]
    for row in rows:
        session.delete(row)
    return dropped


def _clear_orphans(database: Database, files: AbstractFileSystem, root: str) -> int:
    """Remove the folders of trials that have no row, such as those of deleted sweeps."""
    if not files.exists(root):
        return 0
    folders = {str(path).rstrip("/").rpartition("/")[2]: str(path) for path in files.ls(root, detail=False)}
    known = database.read(lambda session: set(session.scalars(sa.select(Artifact.trial_id).distinct())))
    running = database.read(lambda session: set(session.scalars(sa.select(Trial.id).where(Trial.state == "running"))))
    orphans = [path for trial_id, path in folders.items() if trial_id not in known | running]
    for path in orphans:
        files.rm(path, recursive=True)
    return len(orphans)


def _files(settings: Settings) -> tuple[AbstractFileSystem, str]:
    files, root = fsspec.url_to_fs(settings.artifacts_url)
    return cast("AbstractFileSystem", files), str(root).rstrip("/")
