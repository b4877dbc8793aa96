"""Fixtures of the client's and the command line's tests: a running service, and somebody who finishes its trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layersweep import Client
from tests.layersweep.finisher import DOCUMENT, Finisher


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough here: the service's own tests take both."""
    return sqlite_url


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAYERSWEEP_SERVER", "LAYERSWEEP_TOKEN", "LAYERSWEEP_DATA_DIR", "LAYERSWEEP_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture
def client(live_service: str) -> Iterator[Client]:
    with Client(live_service, retry_seconds=5) as client:
        yield client


@pytest.fixture
def finisher(live_service: str) -> Iterator[Finisher]:
    """A worker that knows its answers without computing them; not started."""
    finisher = Finisher(live_service)
    yield finisher
    finisher.stop()
