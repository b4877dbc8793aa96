"""A full or read-only disk is said: 503 with the cause, one line in the log, and not ready."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service.database import outages
from service.errors import CannotStoreError, UnavailableError
from service.http.dependencies import Services

FORM = {"files": {"file": ("f.txt", b"abc" * 1000)}, "data": {"name": "text"}}


_open = Path.open


def _is_full(path: Path, mode: str = "r", **options: Any) -> Any:
    """What is written goes to a device that is always full."""
    return _open(Path("/dev/full") if mode == "wb" else path, mode, **options)


def test_an_upload_to_a_full_disk_is_answered_with_the_cause_in_one_line(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "open", _is_full)
    caplog.set_level(logging.ERROR)
    answer = client.post("/v1/datasets", **FORM)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:layersweep:problem:cannot-store")
    assert "No space left on device" in answer.json()["detail"]
    assert answer.headers["Retry-After"]
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    assert record.exc_info is None


def test_a_database_without_a_folder_that_it_can_write_says_so(tmp_path: Path) -> None:
    with pytest.raises(OperationalError) as caught, sa.create_engine(f"sqlite:///{tmp_path}/none/x.db").connect():
        pass
    assert str(outages.words_of(caught.value)).endswith("its folder has to be there, and writable")


def test_a_database_whose_disk_is_full_says_so(
    client: TestClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    if services.database.dialect != "sqlite":
        pytest.skip("the limit of pages is SQLite's")
    # Its file grows no more: what SQLite says is what it says of a full disk.
    services.database.write(lambda session: session.execute(sa.text("PRAGMA max_page_count = 1")).close())
    caplog.set_level(logging.ERROR)
    answers = (
        client.post("/v1/projects", json={"name": f"p{number}"}, headers={"Idempotency-Key": f"{number}" + "k" * 190})
        for number in range(500)
    )
    answer = next(answer for answer in answers if answer.status_code != 201)
    assert (answer.status_code, answer.json()["detail"]) == (503, "the database's disk is full")
    assert [record.exc_info for record in caplog.records] == [None]


def test_what_is_read_with_a_token_is_read_while_nothing_can_be_stored(
    client: TestClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    if services.database.dialect != "sqlite":
        pytest.skip("the switch is SQLite's")
    made = client.post("/v1/tokens", json={"name": "ci", "scopes": ["admin"]})
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    services.database.write(lambda session: session.execute(sa.text("PRAGMA query_only = 1")).close())
    services.access.forget()
    caplog.set_level(logging.ERROR)
    for path in ("/v1/sweeps", "/v1/datasets", "/v1/workers", "/v1/projects", "/v1/tokens", "/", "/workers"):
        assert client.get(path, headers=headers).status_code == 200, path
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage() == "when a token was last used could not be stored: the database's disk is read-only"
    refused = client.post("/v1/projects", json={"name": "p"}, headers=headers)
    assert (refused.status_code, refused.json()["detail"]) == (503, "the database's disk is read-only")


def test_a_folder_that_cannot_be_written_makes_the_service_not_ready(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").status_code == 200
    assert not [path for path in Path(services.settings.data_dir).iterdir() if path.name.startswith(".probe")]

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the data folder (LAYERSWEEP_DATA_DIR) cannot be written: No space left on device"
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, ""), CannotStoreError),
        (OSError(errno.EROFS, ""), CannotStoreError),
        (PermissionError(errno.EACCES, ""), CannotStoreError),
        (OSError(errno.EDQUOT, ""), CannotStoreError),
        (FileNotFoundError(errno.ENOENT, ""), None),
        (ConnectionResetError(errno.ECONNRESET, ""), None),
        (ValueError(), None),
        (sa.exc.TimeoutError(), UnavailableError),
        (OperationalError("", None, Exception()), None),
    ],
)
def test_which_errors_an_operator_has_to_see_to(error: Exception, kind: type[UnavailableError] | None) -> None:
    answer = outages.answer_to(error)
    assert (None if answer is None else type(answer)) is kind
