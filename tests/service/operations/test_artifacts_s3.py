"""Artifacts in an S3-compatible store, reached as docker-compose.yml does: by AWS's own variables and a file of keys.

The store is moto's server, a real one over HTTP. Run where `pip install 'moto[server]' s3fs` was; skipped elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import NotFoundError
from service.http.dependencies import Services
from service.operations import artifacts
from tests.service.operations.test_artifacts import Attempt

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

KEYS = "[default]\naws_access_key_id = layersweep\naws_secret_access_key = of-a-test\n"


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def attempt(services: Services, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempt]:
    (tmp_path / "keys").write_text(KEYS)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    s3fs.S3FileSystem(skip_instance_cache=True).makedirs("layersweep", exist_ok=True)
    services.settings.artifacts_url = f"s3://layersweep/{uuid.uuid4().hex}"
    services.database.upgrade()
    yield Attempt(services)
    services.database.close()


def kept(attempt: Attempt) -> list[str]:
    root = attempt.services.settings.artifacts_url.removeprefix("s3://")
    return s3fs.S3FileSystem(skip_instance_cache=True).find(root)


def test_an_artifact_is_kept_read_and_deleted_by_age(attempt: Attempt) -> None:
    for content in (b"first", b"second", b"x" * 6_000_000):
        attempt.store(content)
    attempt.finish()
    assert attempt.read() == b"x" * 6_000_000
    assert len(kept(attempt)) == 1
    row, settings = attempt.row(), attempt.services.settings
    settings.artifact_days = 1e-9
    assert artifacts.collect_garbage(attempt.services.database, settings) == 1
    assert kept(attempt) == []
    with pytest.raises(NotFoundError):
        b"".join(artifacts.read(settings, row))


def test_what_no_row_names_is_cleared_once_its_trial_has_ended(attempt: Attempt) -> None:
    attempt.store(b"kept")
    (path,) = kept(attempt)
    s3fs.S3FileSystem(skip_instance_cache=True).pipe(path.replace("/1/", "/2/"), b"of an attempt that was lost")
    attempt.finish()
    database, settings = attempt.services.database, attempt.services.settings
    database.write(lambda session: setattr(session.get_one(artifacts.Trial, attempt.trial), "pareto_rank", 1))
    assert artifacts.collect_garbage(database, settings) == 1
    assert kept(attempt) == [path]
