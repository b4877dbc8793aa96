"""A data folder that is away, or that belongs to another database, makes the service not ready, with the reason."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.database.models import Artifact
from service.events import server_key
from service.http.dependencies import Services
from service.operations import artifacts
from service.settings import Settings
from tests.service.rows import Rows


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """A database outside the data folder, as one of PostgreSQL is."""
    return migrated_sqlite_url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, data_dir=tmp_path / "data")


def _reason(client: TestClient) -> str:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    return answer.json()["detail"]


def test_another_folder_is_told_at_the_start_and_is_not_ready(
    client: TestClient, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/v1/datasets", data={"name": "text"}, files={"file": ("t.txt", b"abc " * 400)}).raise_for_status()
    assert client.get("/readyz").status_code == 200
    another = tmp_path / "another"
    with TestClient(create_app(settings.model_copy(update={"data_dir": another}), start_scheduler=False)) as wrong:
        assert "the database names datasets, and none of them lies in the data folder" in _reason(wrong)
        assert wrong.get("/healthz").status_code == 200
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert str(another) in record.getMessage()
    assert "LAYERSWEEP_DATA_DIR" in record.getMessage()


def test_a_folder_without_the_key_of_the_webhooks_is_told_at_the_start(
    client: TestClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/v1/webhooks", json={"url": "https://192.0.2.1/"})
    client.post("/v1/webhooks", json={"url": "https://93.184.216.34/"}).raise_for_status()
    (settings.data_dir / server_key.FILE).unlink()
    with TestClient(create_app(settings, start_scheduler=False)):
        pass
    assert any(f"{settings.data_dir / server_key.FILE} is not there" in each for each in caplog.messages)
    assert not (settings.data_dir / server_key.FILE).exists()


def test_artifacts_that_lie_elsewhere_make_it_not_ready(
    client: TestClient, services: Services, served_rows: Rows, settings: Settings
) -> None:
    (trial,) = served_rows.queue(served_rows.sweep(), 1)

    def keep(session: Any) -> None:
        row = {"attempt": 1, "size_bytes": 4, "sha256": "a" * 64, "created_at": 1.0}
        session.add(Artifact(trial_id=trial, name="run.py", **row))

    services.database.write(keep)
    assert "the database names artifacts" in _reason(client)
    Path(settings.artifacts_url, trial).mkdir(parents=True)
    assert client.get("/readyz").status_code == 200


def test_files_of_another_database_are_not_cleared_away(
    client: TestClient, services: Services, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/v1/datasets", data={"name": "text"}, files={"file": ("t.txt", b"abc " * 400)}).raise_for_status()
    wrong = Settings(database_url=settings.database_url, data_dir=tmp_path / "another")
    theirs = Path(wrong.artifacts_url, "01TRIAL", "1", "run.py")
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert artifacts.count_garbage(services.database, wrong) == 0
    assert artifacts.collect_garbage(services.database, wrong) == 0
    assert theirs.exists()
    assert "none of them lies in the data folder" in caplog.text


def test_a_folder_that_vanishes_is_not_made_anew(client: TestClient, settings: Settings) -> None:
    shutil.rmtree(settings.data_dir)
    assert _reason(client) == "the data folder (LAYERSWEEP_DATA_DIR) is not there"
    refused = client.post("/v1/datasets", data={"name": "text"}, files={"file": ("t.txt", b"abc " * 400)})
    assert (refused.status_code, refused.json()["detail"]) == (503, "the data folder is not there")
    assert client.post("/v1/webhooks", json={"url": "https://93.184.216.34/"}).status_code == 503
    assert not settings.data_dir.exists()
