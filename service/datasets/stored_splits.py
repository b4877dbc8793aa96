"""The splits of datasets on disk: NPZ files below `datasets/<sha256>/`, all of a dataset's or none."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from service.common.hashing import file_hash
from service.database.dataset_columns import StoredSplit
from service.datasets.content import SPLIT_NAMES, Arrays, Content
from service.datasets.content_folders import INCOMING
from service.datasets.texts.tokens import pieces


def content_hash(content: Content) -> str:
    """SHA-256 over the task, the facts and every array's split, name, type, shape and little-endian bytes."""
    digest = hashlib.sha256(json.dumps([content.task, dict(content.facts)], sort_keys=True).encode())
    for split in SPLIT_NAMES:
        for name, given in sorted(content.splits.get(split, {}).items()):
            kept = given.dtype.newbyteorder("<")
            digest.update(f"\0{split} {name} {kept.str} {given.shape}\0".encode())
            for piece in pieces(given):
                digest.update(np.ascontiguousarray(piece, kept).data)
    return digest.hexdigest()


def folder(data_dir: Path | str, digest: str) -> Path:
    """Where the splits of the dataset with this content hash lie."""
    return Path(data_dir) / "datasets" / digest


def tokenizer_path(data_dir: Path | str, digest: str) -> Path:
    """Where the tokenizer of the dataset with this content hash lies, if it has one."""
    return folder(data_dir, digest) / "tokenizer.json"


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
            _write_npz(path, arrays)
            described[split] = {**content.counts[split], "sha256": file_hash(path)}
        if content.tokenizer_file is not None:
            shutil.copyfile(content.tokenizer_file, complete / "tokenizer.json")
        try:
            complete.replace(place)
        except OSError:
            # The folder is there: the same content, registered before or at this very moment.
            if not is_stored(data_dir, digest, described):
                shutil.rmtree(place, ignore_errors=True)
                complete.replace(place)
    return described


def _write_npz(path: Path, arrays: Arrays) -> None:
    """As `numpy.savez`, byte for byte, but what is mapped passes through memory a piece at a time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(array, np.memmap):
                    npy.write_array_header_1_0(member, npy.header_data_from_array_1_0(array))
                    for piece in pieces(array):
                        member.write(piece.data)
                else:
                    npy.write_array(member, array, allow_pickle=False)
