"""A backup holds everything, is taken while the service writes, and is checked before anything is put back."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from service.app import prepare
from service.database.models import Sweep
from service.database.sessions import Database
from service.datasets import datasets
from service.events import server_key
from service.operations import backups
from service.settings import Settings
from tests.service.sweep_rows import add_sweep


@pytest.fixture
def installation(tmp_path: Path) -> Settings:
    """An installation with its built-in datasets and one sweep."""
    settings = Settings(database_url="", data_dir=tmp_path / "data")
    database = Database(settings.database_url)
    prepare(database, settings)
    database.write(lambda session: add_sweep(session).id)
    database.close()
    return settings


def unused() -> bool:
    """No webhook was made with the key."""
    return False


def elsewhere(tmp_path: Path) -> Settings:
    return Settings(database_url="", data_dir=tmp_path / "elsewhere")


def rewritten(archive: Path, change: dict[str, bytes | None]) -> Path:
    """The archive with the named members' content replaced; None leaves a member out."""
    other = archive.with_name("other.tar.gz")
    with tarfile.open(archive) as source, tarfile.open(other, "w:gz") as target:
        for member in source.getmembers():
            content = source.extractfile(member).read()
            if member.name in change:
                if (given := change[member.name]) is None:
                    continue
                content = given
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return other


def test_a_restored_backup_is_the_same_installation(installation: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    made = backups.back_up(installation, archive)
    settings = elsewhere(tmp_path)
    assert backups.restore(archive, settings) == made
    before, after = Database(installation.database_url), Database(settings.database_url)
    try:
        for table in ("sweeps", "datasets", "alembic_version"):
            with before.engine.connect() as one, after.engine.connect() as other:
                rows = [list(each.exec_driver_sql(f"SELECT * FROM {table}")) for each in (one, other)]
            assert rows[0] == rows[1] != []
        assert after.schema_is_current()
        prepare(after, settings)
        row = after.read(lambda session: datasets.find(session, "python-topics"))
        assert row is not None
        assert (settings.data_dir / "datasets" / row.sha256 / "training.npz").is_file()
    finally:
        before.close()
        after.close()


def test_the_key_of_the_webhooks_comes_back_for_its_owner_alone(installation: Settings, tmp_path: Path) -> None:
    key = server_key.read(installation, unused)
    (installation.data_dir / "uploads" / "half").write_bytes(b"")
    (installation.data_dir / "datasets" / "incoming-1").mkdir()
    (installation.data_dir / "datasets" / "incoming-1" / "training.npz").write_bytes(b"")
    (installation.data_dir / ".server.key.0a").write_bytes(b"")
    archive = tmp_path / "backup.tar.gz"
    backups.back_up(installation, archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    settings = elsewhere(tmp_path)
    backups.restore(archive, settings)
    assert server_key.read(settings, unused) == key
    assert (settings.data_dir / server_key.FILE).stat().st_mode & 0o777 == 0o600
    restored = {path.relative_to(settings.data_dir).parts[0] for path in settings.data_dir.rglob("*")}
    assert restored == {"datasets", "layersweep.db", server_key.FILE}, "nothing that was not finished"
    assert not list(settings.data_dir.glob("datasets/incoming-*"))


def test_a_key_that_is_there_is_not_overwritten(installation: Settings, tmp_path: Path) -> None:
    server_key.read(installation, unused)
    backups.back_up(installation, tmp_path / "backup.tar.gz")
    settings = elsewhere(tmp_path)
    settings.data_dir.mkdir()
    key = server_key.read(settings, unused)
    with pytest.raises(backups.BackupError, match=r"server\.key is there already"):
        backups.restore(tmp_path / "backup.tar.gz", settings)
    assert server_key.read(settings, unused) == key
    assert not (settings.data_dir / "layersweep.db").exists()


def test_the_files_of_an_installation_on_postgresql_are_kept_by_the_documented_commands(
    installation: Settings, tmp_path: Path
) -> None:
    key = server_key.read(installation, unused)
    lines = (Path(__file__).parents[3] / "docs" / "operating.md").read_text().splitlines()
    restored = tmp_path / "restored"
    for folder, line in zip(
        (installation.data_dir, restored), [each for each in lines if each.startswith("tar ")], strict=True
    ):
        folder.mkdir(exist_ok=True)
        environment = os.environ | {"LAYERSWEEP_DATA_DIR": str(folder)}
        subprocess.run(["bash", "-euc", f"umask 077; {line}"], cwd=tmp_path, env=environment, check=True)
    assert server_key.read(installation.model_copy(update={"data_dir": restored}), unused) == key
    assert [path.stat().st_mode & 0o777 for path in (restored / server_key.FILE, tmp_path / "data.tar.gz")] == [
        0o600
    ] * 2


def test_a_backup_is_taken_while_a_transaction_is_open(installation: Settings, tmp_path: Path) -> None:
    database = Database(installation.database_url)
    try:
        with database.engine.begin() as writing:
            writing.exec_driver_sql("UPDATE sweeps SET name = 'half done'")
            backups.back_up(installation, tmp_path / "backup.tar.gz")
    finally:
        database.close()
    settings = elsewhere(tmp_path)
    backups.restore(tmp_path / "backup.tar.gz", settings)
    restored = Database(settings.database_url)
    names = restored.read(lambda session: [row.name for row in session.query(Sweep)])
    restored.close()
    assert len(names) == 1
    assert names != ["half done"]


def test_nothing_is_overwritten(installation: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    backups.back_up(installation, archive)
    with pytest.raises(backups.BackupError, match="is there already"):
        backups.back_up(installation, archive)
    with pytest.raises(backups.BackupError, match="overwrites nothing"):
        backups.restore(archive, installation)


@pytest.mark.parametrize("name", ["layersweep.db", "manifest.json"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(installation: Settings, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "backup.tar.gz"
    backups.back_up(installation, archive)
    settings = elsewhere(tmp_path)
    for damaged in (rewritten(archive, {name: b"{}"}), rewritten(archive, {name: None})):
        with pytest.raises(backups.BackupError, match=r"not a whole backup|is damaged"):
            backups.restore(damaged, settings)
        assert list(settings.data_dir.iterdir()) == []


def test_what_the_manifest_does_not_list_is_refused(installation: Settings, tmp_path: Path) -> None:
    archive, settings = tmp_path / "backup.tar.gz", elsewhere(tmp_path)
    backups.back_up(installation, archive)
    with tarfile.open(archive) as whole:
        manifest = json.load(whole.extractfile("manifest.json"))
    name = next(each for each in manifest["files"] if each.startswith("files/"))
    for left_out in (name, "layersweep.db"):
        files = {each: entry for each, entry in manifest["files"].items() if each != left_out}
        other = rewritten(archive, {"manifest.json": json.dumps(manifest | {"files": files}).encode()})
        with pytest.raises(backups.BackupError, match="is damaged"):
            backups.restore(other, settings)
        assert list(settings.data_dir.iterdir()) == []


def test_a_backup_in_the_data_folder_does_not_hold_itself(installation: Settings, tmp_path: Path) -> None:
    elsewhere = backups.back_up(installation, tmp_path / "backup.tar.gz")
    assert backups.back_up(installation, installation.data_dir / "backup.tar.gz") == elsewhere


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "hostile.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in (("../outside", b"x"), ("manifest.json", json.dumps({"format": 1}).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    settings = elsewhere(tmp_path)
    with pytest.raises(backups.BackupError, match="not a whole backup"):
        backups.restore(archive, settings)
    assert not (settings.data_dir / "outside").exists()
    assert not (tmp_path / "outside").exists()


def test_a_missing_dataset_file_is_noticed_when_the_backup_is_made(installation: Settings, tmp_path: Path) -> None:
    next(installation.data_dir.rglob("training.npz")).unlink()
    with pytest.raises(backups.BackupError, match="the database names it"):
        backups.back_up(installation, tmp_path / "backup.tar.gz")
    assert not (tmp_path / "backup.tar.gz").exists()


def test_postgresql_is_told_where_to_look(tmp_path: Path) -> None:
    settings = Settings(database_url="postgresql://nowhere/x", data_dir=tmp_path)
    with pytest.raises(backups.BackupError, match="pg_dump"):
        backups.back_up(settings, tmp_path / "backup.tar.gz")
