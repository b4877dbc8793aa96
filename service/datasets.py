"""Datasets: registered once, cut into parts that never change, kept as NPZ files named by the hash of their content.

Layout below the data folder: `datasets/<sha256>/<part>.npz`. A sweep's attempt is given training and validation;
the test part is held back.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from pydoc_data.topics import topics
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import schemas
from service.db import Database, now
from service.errors import Conflict, NotFound, Unprocessable
from service.ids import new_id
from service.models import Dataset, Sweep
from service.profiles import text_profile
from service.settings import Settings
from service.texts import TOKENIZERS, Fractions, Text, Tokenizer, read_text

PROJECT = "default"
PART_NAMES = ("training", "validation", "test")
OfferedPart = Literal["training", "validation"]
"""The parts that leave the service."""

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TASKS = ("causal_lm",)
"""What a text can be registered for."""


def register_text(
    database: Database,
    settings: Settings,
    path: Path,
    *,
    name: str,
    task: str = "causal_lm",
    tokenizer: str = "byte",
    fractions: Fractions,
    builtin: bool = False,
) -> tuple[schemas.DatasetDetail, bool]:
    """Register the text file at `path` under `name`; True when it is new.

    The same content under the same name is the dataset that is there already. Raises Conflict when the name belongs to
    other content, Unprocessable when the name, the task, the tokenizer, the fractions or the text will not do.
    """
    check_name(name)
    if task not in TASKS:
        raise Unprocessable(f"task={task!r}: a text file is registered for {' or '.join(TASKS)}")
    text = read_text(path, _tokenizer(tokenizer), fractions)
    digest = content_hash(task, text.facts, text.parts)
    parts = _store(settings.data_dir, digest, text.parts)
    profile = text_profile(text.parts, text.vocabulary, text.vocabulary_size)
    size_bytes = path.stat().st_size

    def insert(session: Session) -> tuple[schemas.DatasetDetail, bool]:
        known = find(session, name)
        if known is not None:
            if known.sha256 != digest:
                raise Conflict(
                    f"the name {name!r} belongs to a dataset with other content (or cut otherwise), {known.id}: "
                    "choose another name, or delete that one first"
                )
            return to_detail(known), False
        row = Dataset(
            id=new_id(),
            project=PROJECT,
            name=name,
            task=task,
            tokenizer=tokenizer,
            builtin=builtin,
            sha256=digest,
            size_bytes=size_bytes,
            facts=text.facts,
            parts=parts,
            profile=profile,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        return to_detail(row), True

    try:
        answer = database.write(insert)
    except IntegrityError:
        # Somebody took the name between our look and our insert: now it is found.
        answer = database.write(insert)
    if not _is_stored(settings.data_dir, digest, parts):
        # The same content was deleted meanwhile, with its files.
        _store(settings.data_dir, digest, text.parts)
    return answer


def register_builtins(database: Database, settings: Settings) -> None:
    """Register what every installation has: `python-topics`, the English of the running Python's own help.

    Called at every start. The text differs a little between Python releases: what was registered first stays.
    """
    known = database.read(lambda session: _builtin_digest(session, "python-topics"))
    if known is not None and _is_stored(settings.data_dir, *known):
        return
    with tempfile.NamedTemporaryFile(dir=uploads_folder(settings)) as file:
        _write_topics(file)
        fractions = Fractions(validation=0.1)
        if known is None:
            register_text(database, settings, Path(file.name), name="python-topics", fractions=fractions, builtin=True)
            return
        _restore(settings, known[0], read_text(Path(file.name), "byte", fractions))


def check_name(name: str) -> None:
    """Raise Unprocessable unless `name` is lower-case letters, digits, '.', '_' and '-', at most 64 of them."""
    if not NAME_PATTERN.fullmatch(name):
        raise Unprocessable(
            f"{name!r} cannot name a dataset: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def find(session: Session, key: str) -> Dataset | None:
    """The dataset with this name or id: names are lower-case and ids are not, so neither is taken for the other."""
    return session.scalar(
        select(Dataset).where(Dataset.project == PROJECT, (Dataset.name == key) | (Dataset.id == key)).limit(1)
    )


def get(session: Session, key: str) -> Dataset:
    """As `find`; raises NotFound with the names that there are."""
    row = find(session, key)
    if row is None:
        names = session.scalars(select(Dataset.name).where(Dataset.project == PROJECT).order_by(Dataset.name).limit(20))
        raise NotFound(f"there is no dataset {key!r}; there are: {', '.join(names) or 'none yet'}")
    return row


def page(session: Session, after: str | None, size: int) -> tuple[list[Dataset], str | None]:
    """Up to `size` datasets by id after `after`, and the id to go on from where there are more."""
    query = select(Dataset).where(Dataset.project == PROJECT).order_by(Dataset.id).limit(size + 1)
    if after is not None:
        query = query.where(Dataset.id > after)
    rows = list(session.scalars(query))
    return rows[:size], rows[size - 1].id if len(rows) > size else None


def content_path(session: Session, settings: Settings, key: str, part: OfferedPart) -> tuple[Path, str]:
    """The NPZ file of a part, and its hash. Raises NotFound when there is no such dataset or its file is gone."""
    row = get(session, key)
    path = _folder(settings.data_dir, row.sha256) / f"{part}.npz"
    if not path.is_file():
        raise NotFound(
            f"the {part} part of dataset {row.name!r} is not in the service's data folder: register its file again"
        )
    return path, str(row.parts[part]["sha256"])


def delete(database: Database, settings: Settings, key: str) -> None:
    """Delete a dataset, and its files unless another shares them. Raises Conflict when it is built in or in use."""

    def remove(session: Session) -> str | None:
        row = get(session, key)
        if row.builtin:
            raise Conflict(f"{row.name!r} is built in and stays")
        sweeps = list(session.scalars(select(Sweep.id).where(Sweep.dataset_id == row.id).limit(5)))
        if sweeps:
            raise Conflict(f"{row.name!r} is the data of sweep {', '.join(sweeps)}: delete the sweeps first")
        session.delete(row)
        session.flush()
        sharing = session.scalar(select(func.count()).select_from(Dataset).where(Dataset.sha256 == row.sha256))
        return None if sharing else row.sha256

    orphan = database.write(remove)
    if orphan is not None:
        shutil.rmtree(_folder(settings.data_dir, orphan), ignore_errors=True)


def uploads_folder(settings: Settings) -> Path:
    """Where files are kept while they arrive: on the volume of the data, which has the room that /tmp may lack."""
    folder = Path(settings.data_dir) / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def to_schema(row: Dataset) -> schemas.Dataset:
    return schemas.Dataset.model_validate(row)


def to_detail(row: Dataset) -> schemas.DatasetDetail:
    return schemas.DatasetDetail.model_validate(row)


def content_hash(task: str, facts: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the task, the facts and every part's name, type, shape and little-endian bytes."""
    digest = hashlib.sha256(json.dumps([task, facts], sort_keys=True).encode())
    for part in PART_NAMES:
        if part in parts:
            array = np.ascontiguousarray(parts[part], dtype=parts[part].dtype.newbyteorder("<"))
            digest.update(f"\0{part} {array.dtype.str} {array.shape}\0".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _tokenizer(name: str) -> Tokenizer:
    for each in TOKENIZERS:
        if each == name:
            return each
    raise Unprocessable(f"tokenizer={name!r}: choose {' or '.join(TOKENIZERS)}")


def _folder(data_dir: Path | str, digest: str) -> Path:
    return Path(data_dir) / "datasets" / digest


def _store(data_dir: Path | str, digest: str, parts: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Write the parts as NPZ files, all or nothing; answer each part's size and its file's hash."""
    folder = _folder(data_dir, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="incoming-") as incoming:
        described: dict[str, Any] = {}
        for part, tokens in parts.items():
            path = Path(incoming) / f"{part}.npz"
            np.savez(path, allow_pickle=False, tokens=tokens)
            described[part] = {"tokens": len(tokens), "sha256": _file_hash(path)}
        complete = Path(incoming) / "complete"
        complete.mkdir()
        for part in parts:
            (Path(incoming) / f"{part}.npz").rename(complete / f"{part}.npz")
        try:
            complete.replace(folder)
        except OSError:
            # The folder is there: the same content, registered before or at this very moment.
            if not _is_stored(data_dir, digest, described):
                shutil.rmtree(folder, ignore_errors=True)
                complete.replace(folder)
    return described


def _is_stored(data_dir: Path | str, digest: str, parts: Mapping[str, Any]) -> bool:
    return all((_folder(data_dir, digest) / f"{part}.npz").is_file() for part in parts)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _builtin_digest(session: Session, name: str) -> tuple[str, dict[str, Any]] | None:
    row = find(session, name)
    return None if row is None else (row.sha256, row.parts)


def _restore(settings: Settings, digest: str, text: Text) -> None:
    """Put a built-in dataset's lost files back, where this Python still has the same text."""
    if content_hash("causal_lm", text.facts, text.parts) == digest:
        _store(settings.data_dir, digest, text.parts)


def _write_topics(file: IO[bytes]) -> None:
    file.write("\n".join(topics[topic] for topic in sorted(topics)).encode())
    file.flush()
