"""Backups of an installation with the embedded database: one archive that holds a snapshot and every file it names.

    layersweep.db       the database, as it was at one moment (SQLite's online backup: the service goes on meanwhile)
    files/<path>        what lies beside it in the data folder: datasets and artifacts, which never change once written,
                        and `server.key`, which the webhooks' secrets are made from
    manifest.json       version, schema, and each file's size and SHA-256

Whoever has an archive can sign as the service does, so only its owner may read it.
PostgreSQL has tools of its own for this: docs/operating.md says which.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

from service.datasets.content_folders import INCOMING
from service.events import server_key
from service.settings import Settings

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "layersweep.db"
FILES = "files"
TRANSIENT_FOLDERS = frozenset({"uploads"})
"""Folders of the data folder that hold nothing finished."""
SECRET_FILES = frozenset({server_key.FILE})
"""Files of the data folder that only their owner may read."""
_OF_SQLITE = ("", "-wal", "-shm", "-journal")
"""What SQLite calls the files that it keeps beside a database."""


class BackupError(Exception):
    """A backup that cannot be made or put back; the message says why, and what to try."""


class ManifestEntry(TypedDict):
    """What the manifest says of a file."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """What a backup holds."""

    format: int
    schema: str
    made_at: int
    files: dict[str, ManifestEntry]


@dataclass(frozen=True, slots=True)
class Backup:
    """What an archive holds."""

    schema: str
    files: int
    size_bytes: int
    """Of the content, before it is compressed."""


def back_up(settings: Settings, archive: Path) -> Backup:
    """Write a backup of the installation that `settings` describe to `archive` (a .tar.gz that is not there yet).

    The service may run: writes go on while the snapshot is taken. The archive is whole or not there.
    Raises BackupError.
    """
    database = _database_file(settings)
    if not database.is_file():
        raise BackupError(f"there is no database {database}: name the installation with --data-dir")
    if archive.exists():
        raise BackupError(f"{archive} is there already: give a name that is not taken")
    if not archive.parent.is_dir():
        raise BackupError(f"there is no folder {archive.parent} to write the backup to")
    part = archive.with_name(f".{archive.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # Hidden, so that it is no part of a backup that is written into the data folder.
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".backup-") as folder:
            snapshot = Path(folder) / DATABASE
            _snapshot(database, snapshot)
            backup = _write(part, snapshot, settings.data_dir, _to_keep(settings.data_dir, database))
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    return backup


def restore(archive: Path, settings: Settings) -> Backup:
    """Put the backup in `archive` into the data folder of `settings`, which must not hold a database yet.

    Everything is checked against the manifest before the folder is touched. Raises BackupError.
    """
    database = _database_file(settings)
    if database.exists():
        raise BackupError(
            f"{database} is there already, and a restore overwrites nothing: stop the service and move that folder "
            "away, or name an empty one with --data-dir"
        )
    if not archive.is_file():
        raise BackupError(f"there is no backup {archive}")
    data_dir = settings.data_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    for name in SECRET_FILES:
        if (data_dir / name).exists():
            raise BackupError(f"{data_dir / name} is there already, and a restore overwrites nothing: move it away")
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=".restore-") as name:
        folder = Path(name)
        manifest = _unpack(archive, folder)
        _verify(manifest, folder)
        for path in _files_below(folder / FILES):
            place = data_dir / path.relative_to(folder / FILES)
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.name in SECRET_FILES:
                path.chmod(0o600)
            path.replace(place)
        database.parent.mkdir(parents=True, exist_ok=True)
        # Last, because it is what makes the folder an installation; moved, because its volume may be another.
        shutil.move(folder / DATABASE, database)
    files = manifest["files"]
    return Backup(str(manifest["schema"]), len(files), sum(each["bytes"] for each in files.values()))


def _database_file(settings: Settings) -> Path:
    prefix = "sqlite:///"
    if not settings.database_url.startswith(prefix):
        raise BackupError(
            "this is for the embedded SQLite database. For PostgreSQL use pg_dump and pg_restore, and copy the data "
            "folder: docs/operating.md"
        )
    return Path(settings.database_url.removeprefix(prefix))


def _snapshot(database: Path, copy: Path) -> None:
    """The database at one moment, whoever writes meanwhile."""
    try:
        with (
            closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            # One file, without a log beside it.
            target.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"{database} cannot be read as an SQLite database: {error}") from error


def _to_keep(data_dir: Path, database: Path) -> list[Path]:
    """The files of the data folder that a backup holds beside the database, each relative to the folder."""
    of_database = {database.absolute().with_name(database.name + suffix) for suffix in _OF_SQLITE}
    return [
        path.relative_to(data_dir)
        for path in _files_below(data_dir)
        if path.absolute() not in of_database and not _is_unfinished(path.relative_to(data_dir))
    ]


def _is_unfinished(relative: Path) -> bool:
    return (
        relative.parts[0] in TRANSIENT_FOLDERS
        or any(part.startswith(".") for part in relative.parts)
        or any(part.startswith(INCOMING) for part in relative.parts)
    )


def _write(part: Path, snapshot: Path, data_dir: Path, files: Sequence[Path]) -> Backup:
    schema = _schema_of(snapshot)
    entries = {DATABASE: _described(snapshot)}
    with tarfile.open(part, "w:gz", compresslevel=6) as tar:
        tar.add(snapshot, DATABASE)
        for relative in files:
            name = str(PurePosixPath(FILES, *relative.parts))
            # What was deleted since the folder was listed is missed below, if the database names it.
            with contextlib.suppress(FileNotFoundError):
                entry = _described(data_dir / relative)
                tar.add(data_dir / relative, name)
                entries[name] = entry
        kept = (*_dataset_files(snapshot), *_checkpoint_files(snapshot))
        missing = [path for path in kept if f"{FILES}/{path}" not in entries]
        if missing:
            raise BackupError(
                f"{missing[0]} is not in {data_dir}, though the database names it: a dataset that was deleted just "
                "now, or a data folder that is not this database's. Try again, or set LAYERSWEEP_DATA_DIR"
            )
        made_at = int(time.time())
        manifest: Manifest = {"format": FORMAT, "schema": schema, "made_at": made_at, "files": entries}
        content = json.dumps(manifest, indent=1).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mtime = len(content), made_at
        tar.addfile(info, io.BytesIO(content))
    return Backup(schema, len(entries), sum(each["bytes"] for each in entries.values()))


def _schema_of(snapshot: Path) -> str:
    with closing(sqlite3.connect(snapshot)) as connection:
        try:
            return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
        except (sqlite3.Error, TypeError) as error:
            raise BackupError("the database holds no Layersweep schema") from error


def _checkpoint_files(snapshot: Path) -> Iterator[str]:
    with closing(sqlite3.connect(snapshot)) as connection:
        for digest, has_tokenizer in connection.execute("SELECT sha256, has_tokenizer FROM checkpoints"):
            names = ("weights.safetensors", "config.json", *(("tokenizer.json",) if has_tokenizer else ()))
            yield from (f"checkpoints/{digest}/{name}" for name in names)


def _dataset_files(snapshot: Path) -> Iterator[str]:
    with closing(sqlite3.connect(snapshot)) as connection:
        for digest, parts, facts in connection.execute("SELECT sha256, parts, facts FROM datasets"):
            for part in json.loads(parts):
                yield f"datasets/{digest}/{part}.npz"
            if "tokenizer_sha256" in json.loads(facts):
                yield f"datasets/{digest}/tokenizer.json"


def _unpack(archive: Path, folder: Path) -> Manifest:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            # The filter refuses links, devices and every path that leads out of the folder.
            tar.extractall(folder, filter="data")
        manifest: Manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise BackupError(f"{archive} has format {manifest['format']}; this version reads format {FORMAT}")
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{archive} is not a whole backup of Layersweep: {error}") from error
    return manifest


def _verify(manifest: Manifest, folder: Path) -> None:
    """Raise BackupError if the unpacked files are others than the manifest lists, or more, or fewer."""
    listed = manifest["files"]
    found = {path.relative_to(folder).as_posix(): path for path in _files_below(folder)}
    del found[MANIFEST]
    for name in sorted({DATABASE, *found, *listed}):
        if name not in found or _described(found[name]) != listed.get(name):
            raise BackupError(f"the backup is damaged: {name} is not what its manifest says. Take another backup")


def _described(path: Path) -> ManifestEntry:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
