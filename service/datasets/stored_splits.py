"""The splits of datasets on disk: NPZ files below `datasets/<sha256>/`, all of a dataset's or none."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from service.database.dataset_columns import StoredSplit
from service.datasets.content import SPLIT_NAMES, Content

INCOMING = "incoming-"
"""How the folder of a dataset begins that is being written: one that is old was cut off with its process."""


def content_hash(content: Content) -> str:
    """SHA-256 over the task, the facts and every array's split, name, type, shape and little-endian bytes."""
    digest = hashlib.sha256(json.dumps([content.task, dict(content.facts)], sort_keys=True).encode())
    for split in SPLIT_NAMES:
        for name, given in sorted(content.splits.get(split, {}).items()):
            array = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("<"))
            digest.update(f"\0{split} {name} {array.dtype.str} {array.shape}\0".encode())
            digest.update(array.data)
    return digest.hexdigest()


def folder(data_dir: Path | str, digest: str) -> Path:
    """Where the splits of the dataset with this content hash lie."""
    return Path(data_dir) / "datasets" / digest


def is_stored(data_dir: Path | str, digest: str, splits: Iterable[str]) -> bool:
    return all((folder(data_dir, digest) / f"{split}.npz").is_file() for split in splits)


def store(data_dir: Path | str, digest: str, content: Content) -> dict[str, StoredSplit]:
    """Write the splits, all or nothing; answer each split's counts and its file's hash."""
    place = folder(data_dir, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=INCOMING) as incoming:
        complete = Path(incoming) / "complete"
        complete.mkdir()
        described: dict[str, StoredSplit] = {}
        for split, arrays in content.splits.items():
            path = complete / f"{split}.npz"
            np.savez(path, allow_pickle=False, **arrays)
            described[split] = {**content.counts[split], "sha256": _file_hash(path)}
        try:
            complete.replace(place)
        except OSError:
            # The folder is there: the same content, registered before or at this very moment.
            if not is_stored(data_dir, digest, described):
                remove(data_dir, digest)
                complete.replace(place)
    return described


def remove(data_dir: Path | str, digest: str) -> None:
    shutil.rmtree(folder(data_dir, digest), ignore_errors=True)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
