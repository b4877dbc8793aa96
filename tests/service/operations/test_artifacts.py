"""What is kept of a trial stays as it was acknowledged, whatever arrives late, twice or in part."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fsspec.implementations.local import LocalFileSystem
from sqlalchemy.orm import Session

from service.database.models import Artifact
from service.database.sessions import Database
from service.datasets import datasets
from service.errors import LeaseLostError, NotFoundError
from service.http import uploads
from service.http.dependencies import Services
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.leases.statements import TRAINING_STATE
from service.operations import artifacts
from tests.service.rows import Rows

NAME = "run.py"
FINISH = {"outcome": "complete", "metrics": {"latency_ms_p50": 1.0}}


class Attempt:
    """A running attempt of a worker."""

    def __init__(self, services: Services) -> None:
        self.services = services
        rows = Rows(services.database)
        rows.sweep(1)
        worker = rows.worker()
        lease = services.database.write(lambda session: queue.claim(session, worker, 60))
        assert lease is not None
        self.trial = lease.trial

    def store(self, content: bytes, name: str = NAME) -> None:
        with_content = datasets.uploads_folder(self.services.settings) / "arrived"
        with_content.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        artifacts.store(self.services.database, self.services.settings, self.trial, 1, name, with_content, digest)
        with_content.unlink()

    def finish(self) -> None:
        body = lease_schemas.LeaseFinish.model_validate(FINISH)
        self.services.database.write(lambda session: holders.finish(session, self.trial, 1, body))

    def read(self) -> bytes:
        row = self.services.database.read(lambda session: artifacts.find(session, self.trial, NAME))
        return b"".join(artifacts.read(self.services.settings, row))

    def row(self) -> Artifact:
        return self.services.database.read(lambda session: session.get_one(Artifact, (self.trial, NAME)))

    def files(self) -> list[Path]:
        folder = Path(self.services.settings.artifacts_url)
        return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def attempt(services: Services) -> Iterator[Attempt]:
    services.database.upgrade()
    yield Attempt(services)
    services.database.close()


def test_a_body_that_ends_after_its_trial_leaves_what_was_kept(
    app: FastAPI, services: Services, serve: Callable[[FastAPI], str]
) -> None:
    url = serve(app)
    trial = Attempt(services).trial
    path = f"{url}/v1/leases/{trial}/1"
    arriving = datasets.uploads_folder(services.settings)

    def put(content: bytes | Iterator[bytes], whole: bytes) -> httpx2.Response:
        digest = base64.b64encode(hashlib.sha256(whole).digest()).decode()
        headers = {"Content-Digest": f"sha-256=:{digest}:"}
        return httpx2.put(f"{path}/artifacts/{NAME}", content=content, headers=headers, timeout=60)

    def held_open() -> Iterator[bytes]:
        yield b"la"
        while not any(arriving.iterdir()):
            pass  # until the service has let the upload in
        assert httpx2.post(f"{path}:finish", json=FINISH).status_code == 200
        yield b"te"

    assert put(b"kept", b"kept").status_code == 204
    late = put(held_open(), b"late")
    assert (late.status_code, late.json()["type"].rpartition(":")[2]) == (409, "lease-lost")
    of_trial = f"{url}/v1/trials/{trial}/artifacts"
    assert [each["name"] for each in httpx2.get(of_trial).json()["items"]] == [NAME]
    assert httpx2.get(f"{of_trial}/{NAME}").content == b"kept"
    assert not any(arriving.iterdir())


@pytest.mark.parametrize("late", [b"other", b"kept"])
def test_what_comes_too_late_changes_nothing_and_leaves_nothing(attempt: Attempt, late: bytes) -> None:
    attempt.store(b"kept")
    attempt.finish()
    with pytest.raises(LeaseLostError):
        attempt.store(late)
    assert attempt.read() == b"kept"
    assert len(attempt.files()) == 1


def test_an_upload_that_is_sent_again_replaces_the_first(attempt: Attempt) -> None:
    for content in (b"first", b"second", b"second"):
        attempt.store(content)
    attempt.finish()
    assert attempt.read() == b"second"
    assert len(attempt.files()) == 1


def test_the_state_of_a_training_is_not_among_what_a_complete_trial_left(attempt: Attempt) -> None:
    attempt.store(b"kept")
    attempt.store(b"stopped, and finished after all", TRAINING_STATE)
    attempt.finish()
    kept = attempt.services.database.read(lambda session: artifacts.of_trial(session, attempt.trial))
    assert [row.name for row in kept] == [NAME]


def test_what_an_earlier_release_kept_is_found_and_cleared(attempt: Attempt) -> None:
    attempt.store(b"kept")
    attempt.finish()
    (path,) = attempt.files()
    path.rename(path.parent.parent / NAME)
    path.parent.rmdir()
    settings = attempt.services.settings
    row = attempt.row()
    assert b"".join(artifacts.read(settings, row)) == b"kept"
    settings.artifact_days = 1e-9
    assert artifacts.collect_garbage(attempt.services.database, settings) == 1
    assert attempt.files() == []
    with pytest.raises(NotFoundError):
        artifacts.read(settings, row)


def test_files_that_no_row_names_are_cleared_once_their_trial_has_ended(attempt: Attempt) -> None:
    attempt.store(b"kept")
    (path,) = attempt.files()
    # A process was killed while it wrote, another before it could say that it had.
    (path.parent / f".{NAME}.0a.part").write_bytes(b"half")
    unacknowledged = path.parent.parent / "feed" / NAME
    unacknowledged.parent.mkdir()
    unacknowledged.write_bytes(b"whole")
    database, settings = attempt.services.database, attempt.services.settings
    assert artifacts.collect_garbage(database, settings) == 0, "they may be arriving"
    attempt.finish()
    Rows(database).update(artifacts.Trial, attempt.trial, pareto_rank=1)
    assert artifacts.collect_garbage(database, settings) == 2
    assert attempt.files() == [path]


def after_reads(monkeypatch: pytest.MonkeyPatch, database: Database, count: int, happens: Callable[[], object]) -> None:
    """Let something happen after so many reads of the database from now on."""
    read, left = database.read, count

    def counted(look: Callable[[Session], Any]) -> Any:
        nonlocal left
        found = read(look)
        left -= 1
        if not left:
            happens()
        return found

    monkeypatch.setattr(database, "read", counted)


@pytest.mark.parametrize("reads", [1, 2])
def test_what_is_acknowledged_while_garbage_is_looked_for_stays(
    attempt: Attempt, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = attempt.services.database
    attempt.store(b"kept")
    columns = {column.key: getattr(attempt.row(), column.key) for column in sa.inspect(Artifact).columns}
    database.write(lambda session: session.delete(session.get_one(Artifact, (attempt.trial, NAME))))

    def acknowledge() -> None:
        database.write(lambda session: session.add(Artifact(**columns)))
        attempt.finish()
        Rows(database).update(artifacts.Trial, attempt.trial, pareto_rank=1)

    with monkeypatch.context() as patched:
        after_reads(patched, database, reads, acknowledge)
        artifacts.collect_garbage(database, attempt.services.settings)
    assert attempt.read() == b"kept"


def test_what_a_trial_uploads_that_begins_to_run_meanwhile_stays(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = attempt.services.database
    attempt.store(b"kept")
    later: list[Attempt] = []

    def begin() -> None:
        later.append(Attempt(attempt.services))
        later[0].store(b"new")

    with monkeypatch.context() as patched:
        after_reads(patched, database, 2, begin)
        artifacts.collect_garbage(database, attempt.services.settings)
    later[0].finish()
    assert later[0].read() == b"new"


def test_an_upload_outlasts_the_removal_of_its_empty_folder(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalFileSystem.put_file

    def put_after_removal(files: LocalFileSystem, source: str, target: str) -> None:
        monkeypatch.undo()
        artifacts._remove_empty_folders(attempt.services.settings.data_dir / "artifacts", ())
        put(files, source, target)

    monkeypatch.setattr(LocalFileSystem, "put_file", put_after_removal)
    attempt.store(b"kept")
    attempt.finish()
    assert attempt.read() == b"kept"


def test_uploads_are_written_outside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        name = "file"

        def __init__(self) -> None:
            self.content = b""
            self.threads: set[int] = set()

        def close(self) -> None:
            self.threads.add(threading.get_ident())

        def write(self, block: bytes) -> None:
            self.threads.add(threading.get_ident())
            self.content += block

        def flush(self) -> None:
            self.threads.add(threading.get_ident())

    async def chunks(pieces: list[bytes]) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    plain, multipart = Recorder(), Recorder()
    pieces = [bytes([number]) * 65_536 for number in range(40)]
    form = [b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n', *pieces, b"\r\n--b--\r\n"]

    async def both() -> bytes:
        monkeypatch.setattr(Path, "open", lambda self, mode: as_file(multipart))
        reader = uploads.MultipartReader("multipart/form-data; boundary=b", tmp_path, {"file": 1 << 30})
        await reader.read(chunks(form))
        return await uploads.receive(chunks(pieces), as_file(plain), 1 << 30, NAME)

    def as_file(recorder: Recorder) -> Any:
        return recorder

    assert anyio.run(both) == hashlib.sha256(b"".join(pieces)).digest()
    assert plain.content == multipart.content == b"".join(pieces)
    assert threading.get_ident() not in plain.threads | multipart.threads
