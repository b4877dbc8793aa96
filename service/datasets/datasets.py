"""Datasets: registered once, cut into splits that never change, kept as NPZ files named by the hash of their content.

A sweep's attempt is given training and validation; the test split is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from service.auth.projects import DEFAULT
from service.common.ids import new_id
from service.common.names import check_name
from service.common.paging import oldest_page
from service.database.dataset_columns import Profile, StoredSplit
from service.database.models import Dataset, Sweep
from service.database.sessions import Database, now
from service.datasets import schemas as dataset_schemas
from service.datasets import stored_splits
from service.datasets.content import Content
from service.datasets.content_folders import remove_unless_needed, store_with_row
from service.datasets.implications import implications
from service.datasets.stored_splits import content_hash, folder, is_stored, store
from service.errors import CannotStoreError, ConflictError, NotFoundError
from service.settings import Settings

OfferedSplit = Literal["training", "validation"]
"""The splits that leave the service."""

UPLOADS = "uploads"
"""The folder, in the data folder, of files while they arrive."""
AGAIN = "register its file again"

Record = Callable[[Session, str], None]
"""Called in the transaction of a change, with the dataset's id."""


def unrecorded(session: Session, dataset_id: str) -> None:
    """The `Record` of what no caller asked for."""


def register(
    database: Database,
    settings: Settings,
    content: Content,
    *,
    name: str,
    size_bytes: int,
    builtin: bool = False,
    project: str = DEFAULT,
    record: Record = unrecorded,
) -> tuple[dataset_schemas.DatasetDetail, bool]:
    """Register what a file held under `name`; True when it is new.

    The same content under the same name is the dataset that is there already. Raises ConflictError when the name
    belongs to other content, UnprocessableError when it will not do.
    """
    check_name(name, "dataset")
    digest = content_hash(content)
    profile = _profile(content)

    def insert(session: Session, splits: dict[str, StoredSplit]) -> tuple[dataset_schemas.DatasetDetail, bool]:
        known = find(session, name, project)
        if known is not None:
            _refuse_unless_the_same(known, digest)
            # What an earlier version did not count is counted now.
            known.parts = {split: {**counted, **known.parts[split]} for split, counted in splits.items()}
            return to_detail(known), False
        row = Dataset(
            id=new_id(),
            project=project,
            name=name,
            task=content.task,
            tokenizer=content.tokenizer,
            builtin=builtin,
            sha256=digest,
            size_bytes=size_bytes,
            facts=dict(content.facts),
            parts=splits,
            profile=profile,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        record(session, row.id)
        return to_detail(row), True

    return store_with_row(
        lambda: store(settings.data_dir, digest, content),
        lambda splits: database.write(lambda session: insert(session, splits)),
        lambda splits: is_stored(settings.data_dir, digest, splits),
        lambda: _remove_unless_shared(database, settings, digest),
    )


def _profile(content: Content) -> Profile:
    profile = content.profile()
    if content.notes:
        profile["notes"] = list(content.notes)
    return profile


def _refuse_unless_the_same(known: Dataset, digest: str) -> None:
    if known.sha256 != digest:
        raise ConflictError(
            f"the name {known.name!r} belongs to a dataset with other content (or cut otherwise), {known.id}: "
            "choose another name, or delete that one first"
        )


def find(session: Session, name: str, project: str = DEFAULT) -> Dataset | None:
    """The dataset of this name in the project. Built-in ones are in every project."""
    return session.scalar(select(Dataset).where(Dataset.name == name, _offered_to(project)).limit(1))


def get(session: Session, key: str, project: str) -> Dataset:
    """The dataset of this name in the project, or with this id in any: who may ask for it was checked before.

    Names are lower-case and ids are not, so neither is taken for the other. Raises NotFoundError with the names that
    there are.
    """
    row = find(session, key, project) or session.get(Dataset, key)
    if row is None:
        names = session.scalars(select(Dataset.name).where(_offered_to(project)).order_by(Dataset.name).limit(20))
        raise NotFoundError(f"there is no dataset {key!r}; there are: {', '.join(names) or 'none yet'}")
    return row


def page(
    session: Session, *, project: str | None, page_size: int, page_token: str | None
) -> tuple[list[Dataset], str | None]:
    """A page of a project's datasets (None: of all), the oldest first, and the token of the next."""
    query = select(Dataset) if project is None else select(Dataset).where(_offered_to(project))
    return oldest_page(session, query, Dataset.id, page_size=page_size, page_token=page_token)


def names_of(session: Session, ids: Collection[str]) -> dict[str, str]:
    """The names of datasets by their ids."""
    return {row.id: row.name for row in session.execute(select(Dataset.id, Dataset.name).where(Dataset.id.in_(ids)))}


def content_path(session: Session, settings: Settings, key: str, split: OfferedSplit, project: str) -> tuple[Path, str]:
    """The NPZ file of a split, and its hash. Raises NotFoundError when there is no such dataset or its file is gone."""
    row = get(session, key, project)
    return split_path(settings, row, split), str(row.parts[split]["sha256"])


def split_path(settings: Settings, row: Dataset, split: str) -> Path:
    """The NPZ file of a split, whichever. Raises NotFoundError when it is gone."""
    path = folder(settings.data_dir, row.sha256) / f"{split}.npz"
    if not path.is_file():
        raise NotFoundError(f"the {split} split of dataset {row.name!r} is not in the service's data folder: {AGAIN}")
    return path


def tokenizer_path(session: Session, settings: Settings, key: str, project: str) -> tuple[Path, str]:
    """The `tokenizer.json` of a dataset, and its hash. Raises NotFoundError if it has none, or it is gone."""
    row = get(session, key, project)
    digest = row.facts.get("tokenizer_sha256")
    if not isinstance(digest, str):
        why = f"its tokens are {row.tokenizer}" if row.tokenizer else "its file held tokens"
        raise NotFoundError(f"the dataset {row.name!r} has no tokenizer.json: {why}")
    path = stored_splits.tokenizer_path(settings.data_dir, row.sha256)
    if not path.is_file():
        raise NotFoundError(f"the tokenizer of dataset {row.name!r} is not in the service's data folder: {AGAIN}")
    return path, digest


def is_kept(session: Session, dataset_id: str) -> bool:
    """Whether the dataset is there, and then stays until this transaction ends."""
    kept = select(Dataset.id).where(Dataset.id == dataset_id).with_for_update(read=True, key_share=True)
    return session.scalar(kept) is not None


def delete(
    database: Database, settings: Settings, key: str, project: str = DEFAULT, record: Record = unrecorded
) -> None:
    """Delete a dataset, and its files unless another shares them. Raises ConflictError when it is built in or in
    use."""

    def remove_row(session: Session) -> str:
        row = get(session, key, project)
        if row.builtin:
            raise ConflictError(f"{row.name!r} is built in and stays")
        # A sweep that is being stored is waited for and found, or waits and finds no dataset.
        if session.scalar(select(Dataset.id).where(Dataset.id == row.id).with_for_update()) is None:
            raise NotFoundError(f"there is no dataset {key!r}: it was deleted at this moment")
        sweeps = list(session.scalars(select(Sweep.id).where(Sweep.dataset_id == row.id).limit(5)))
        if sweeps:
            raise ConflictError(f"{row.name!r} is the data of sweep {', '.join(sweeps)}: delete the sweeps first")
        session.delete(row)
        session.flush()
        record(session, row.id)
        return row.sha256

    # Not before it is committed: of two who delete the last that share it, each would leave the files to the other.
    _remove_unless_shared(database, settings, database.write(remove_row))


def _remove_unless_shared(database: Database, settings: Settings, digest: str) -> None:
    remove_unless_needed(
        folder(settings.data_dir, digest), lambda: database.read(lambda session: _is_shared(session, digest))
    )


def _is_shared(session: Session, digest: str) -> bool:
    """Whether a dataset has this content."""
    return bool(session.scalar(select(func.count()).select_from(Dataset).where(Dataset.sha256 == digest)))


def uploads_folder(settings: Settings) -> Path:
    """Where files are kept while they arrive: on the volume of the data, which has the room that /tmp may lack.

    The data folder itself is made at the start alone. Raises CannotStoreError if it has vanished since.
    """
    uploads = Path(settings.data_dir) / UPLOADS
    try:
        uploads.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise CannotStoreError("the data folder is not there") from error
    return uploads


def _offered_to(project: str) -> ColumnElement[bool]:
    return or_(Dataset.project == project, Dataset.builtin)


def to_schema(row: Dataset) -> dataset_schemas.Dataset:
    return dataset_schemas.Dataset.model_validate(row)


def to_detail(row: Dataset) -> dataset_schemas.DatasetDetail:
    found = dataset_schemas.DatasetDetail.model_validate(row)
    return found.model_copy(update={"implications": implications(row).implications})
