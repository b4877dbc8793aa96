"""Checkpoints: uploaded once, kept under the data folder, named by sweeps as `checkpoint:NAME`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.declarations.training import CHECKPOINT
from service.checkpoints import reading
from service.checkpoints.reading import CheckpointContent
from service.checkpoints.schemas import Checkpoint as CheckpointSchema
from service.checkpoints.schemas import CheckpointDetail
from service.common.ids import new_id
from service.common.names import check_name
from service.common.paging import oldest_page
from service.common.states import GOING_SWEEPS
from service.database.checkpoint_models import Checkpoint
from service.database.models import Sweep
from service.database.sessions import Database, now
from service.datasets.content_folders import INCOMING, remove_unless_needed, store_with_row
from service.datasets.texts.subwords import SubwordTokenizer
from service.errors import ConflictError, NotFoundError
from service.settings import Settings

Record = Callable[[Session, str], None]
"""Called in the transaction of a change, with the checkpoint's id."""


def register(
    database: Database,
    settings: Settings,
    files: Mapping[str, Path],
    scratch: Path,
    *,
    name: str,
    project: str,
    record: Record,
) -> tuple[CheckpointDetail, bool]:
    """Register files of `transformers` under `name`; True when it is new. `scratch` is an empty folder.

    `files` has a path for `reading.CONFIG` and `reading.WEIGHTS`, and perhaps for `reading.TOKENIZER`. The same content
    under the same name is the checkpoint that is there already. Raises ConflictError when the name belongs to other
    content, UnprocessableError when the name or a file will not do.
    """
    check_name(name, "checkpoint")
    content = reading.read(files[reading.CONFIG], files[reading.WEIGHTS], scratch)
    tokenizer = files.get(reading.TOKENIZER)
    if tokenizer is not None:
        SubwordTokenizer.read(tokenizer)
    digest = content.sha256

    def insert(session: Session) -> tuple[CheckpointDetail, bool]:
        known = find(session, name, project)
        if known is not None:
            if known.sha256 != digest:
                raise ConflictError(
                    f"the name {name!r} belongs to a checkpoint with other content, {known.id}: choose another name, "
                    "or delete that one first"
                )
            return to_detail(known), False
        row = Checkpoint(
            id=new_id(),
            project=project,
            name=name,
            architecture=content.architecture,
            task=content.task,
            sha256=digest,
            size_bytes=content.weights.stat().st_size,
            parameter_count=content.parameter_count,
            config=content.config,
            model=content.model,
            has_tokenizer=tokenizer is not None,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        record(session, row.id)
        return to_detail(row), True

    return store_with_row(
        lambda: _store(settings, digest, content, tokenizer),
        lambda _: database.write(insert),
        lambda _: folder(settings, digest).is_dir(),
        lambda: _remove_unless_shared(database, settings, digest),
    )


def find(session: Session, name: str, project: str) -> Checkpoint | None:
    """The checkpoint of this name in the project."""
    return session.scalar(sa.select(Checkpoint).where(Checkpoint.name == name, Checkpoint.project == project).limit(1))


def get(session: Session, key: str, project: str) -> Checkpoint:
    """The checkpoint of this name in the project, or with this id in any: who may ask for it was checked before.

    Raises NotFoundError with the names that there are.
    """
    row = find(session, key, project) or session.get(Checkpoint, key)
    if row is None:
        query = sa.select(Checkpoint.name).where(Checkpoint.project == project).order_by(Checkpoint.name).limit(20)
        names = ", ".join(session.scalars(query)) or "none yet"
        raise NotFoundError(f"there is no checkpoint {key!r}; there are: {names}")
    return row


def by_hash(session: Session, digest: str, project: str | None) -> Checkpoint | None:
    """A checkpoint with this content in the project (None: in any)."""
    query = sa.select(Checkpoint).where(Checkpoint.sha256 == digest).limit(1)
    return session.scalar(query if project is None else query.where(Checkpoint.project == project))


def page(
    session: Session, *, project: str | None, page_size: int, page_token: str | None
) -> tuple[list[Checkpoint], str | None]:
    """A page of a project's checkpoints (None: of all), the oldest first, and the token of the next."""
    query = sa.select(Checkpoint)
    if project is not None:
        query = query.where(Checkpoint.project == project)
    return oldest_page(session, query, Checkpoint.id, page_size=page_size, page_token=page_token)


def weights_path(settings: Settings, row: Checkpoint) -> Path:
    """The weights by our names. Raises NotFoundError when they are gone."""
    path = folder(settings, row.sha256) / "weights.safetensors"
    if not path.is_file():
        raise NotFoundError(f"the weights of the checkpoint {row.name!r} are not in the service's data folder any more")
    return path


def tokenizer_file(settings: Settings, row: Checkpoint) -> Path:
    """The `tokenizer.json` that came with it. Raises NotFoundError if none did, or it is gone."""
    path = folder(settings, row.sha256) / "tokenizer.json"
    if not path.is_file():
        raise NotFoundError(f"the checkpoint {row.name!r} has no tokenizer: it was added without a tokenizer.json")
    return path


def delete(database: Database, settings: Settings, key: str, project: str, record: Record) -> None:
    """Delete a checkpoint, and its files unless another shares them. Raises ConflictError while a sweep needs it."""

    def remove_row(session: Session) -> str:
        row = get(session, key, project)
        # As of datasets: a sweep that is being stored is waited for and found, or waits and finds no checkpoint.
        if session.scalar(sa.select(Checkpoint.id).where(Checkpoint.id == row.id).with_for_update()) is None:
            raise NotFoundError(f"there is no checkpoint {key!r}: it was deleted at this moment")
        going = session.execute(
            sa.select(Sweep.id, Sweep.document).where(Sweep.project == row.project, Sweep.state.in_(GOING_SWEEPS))
        )
        users = [sweep for sweep, document in going if _needs(document, row)]
        if users:
            raise ConflictError(f"trials of the sweep {', '.join(users[:5])} begin with {row.name!r}: cancel it first")
        session.delete(row)
        session.flush()
        record(session, row.id)
        return row.sha256

    # Not before it is committed: of two who delete the last that share it, each would leave the files to the other.
    _remove_unless_shared(database, settings, database.write(remove_row))


def check_kept(session: Session, document: Mapping[str, object], project: str) -> None:
    """Let nobody delete the checkpoints that trainings begin with by a sweep's document before the transaction has
    ended. Raises ConflictError if one is gone already."""
    for named in CHECKPOINT.finditer(json.dumps(document.get("training", {}))):
        having = sa.select(Checkpoint.id).where(Checkpoint.project == project, Checkpoint.sha256 == named["digest"])
        if not session.scalars(having.with_for_update(read=True, key_share=True)).all():
            raise ConflictError(
                f"the checkpoint {named['name']!r}, which trainings begin with, was deleted: add the same files again"
            )


def folder(settings: Settings, digest: str) -> Path:
    """Where the files of the checkpoint with this content hash lie."""
    return Path(settings.data_dir) / "checkpoints" / digest


def to_schema(row: Checkpoint) -> CheckpointSchema:
    return CheckpointSchema.model_validate(row)


def to_detail(row: Checkpoint) -> CheckpointDetail:
    return CheckpointDetail.model_validate(row)


def _needs(document: Mapping[str, object], row: Checkpoint) -> bool:
    return row.sha256 in json.dumps(document.get("training", {}))


def _remove_unless_shared(database: Database, settings: Settings, digest: str) -> None:
    remove_unless_needed(folder(settings, digest), lambda: database.read(lambda session: _is_shared(session, digest)))


def _is_shared(session: Session, digest: str) -> bool:
    """Whether a checkpoint has this content."""
    return bool(session.scalar(sa.select(sa.func.count()).select_from(Checkpoint).where(Checkpoint.sha256 == digest)))


def _store(settings: Settings, digest: str, content: CheckpointContent, tokenizer: Path | None) -> None:
    """Write the files, all or nothing. What is there already stays, but for a tokenizer that it lacked."""
    place = folder(settings, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=INCOMING) as incoming:
        complete = Path(incoming) / "complete"
        complete.mkdir()
        shutil.copyfile(content.weights, complete / "weights.safetensors")
        (complete / "config.json").write_text(json.dumps(content.config, indent=2), encoding="utf-8")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, complete / "tokenizer.json")
        try:
            complete.replace(place)
        except OSError:
            # The folder is there: the same content, registered before or at this very moment.
            if tokenizer is not None:
                (complete / "tokenizer.json").replace(place / "tokenizer.json")
