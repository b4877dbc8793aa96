"""Files that arrive in several requests, and become datasets."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.datasets import datasets
from service.http.dependencies import Services

TEXT = "".join(f"{number} green bottles hanging on the wall\n" for number in range(300)).encode()
HASH = hashlib.sha256(TEXT).hexdigest()
FORM: dict[str, Any] = {"name": (None, "bottles"), "uploads": (None, HASH)}


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: uploads are files."""
    return migrated_sqlite_url


def send(client: TestClient, content: bytes, offset: int, sha256: str = HASH) -> Any:
    return client.patch(f"/v1/uploads/{sha256}", content=content, headers={"Upload-Offset": str(offset)})


def test_a_file_arrives_piece_by_piece_and_is_registered(client: TestClient, services: Services) -> None:
    assert client.get(f"/v1/uploads/{HASH}").status_code == 404
    assert send(client, TEXT[:1000], 0).json() == {"sha256": HASH, "received_bytes": 1000}
    assert client.get(f"/v1/uploads/{HASH}").json()["received_bytes"] == 1000
    wrong = send(client, TEXT[500:], 500)
    assert (wrong.status_code, "1,000 bytes" in wrong.json()["detail"]) == (409, True)
    early = client.post("/v1/datasets", files=FORM)
    assert (early.status_code, "send the rest" in early.json()["detail"]) == (422, True)
    assert send(client, TEXT[1000:], 1000).json()["received_bytes"] == len(TEXT)
    made = client.post("/v1/datasets", files=FORM)
    assert made.status_code == 201, made.text
    whole = client.post("/v1/datasets", data={"name": "whole"}, files={"file": TEXT}).json()
    assert (made.json()["sha256"], made.json()["size_bytes"]) == (whole["sha256"], len(TEXT))
    assert list(datasets.uploads_folder(services.settings).iterdir()) == []


def test_pieces_that_fit_nowhere_are_refused(client: TestClient, services: Services) -> None:
    services.settings.max_upload_bytes = 1000
    assert send(client, TEXT, 5).status_code == 409
    assert send(client, TEXT, 0).status_code == 413
    assert send(client, TEXT, -1).status_code == 422
    assert send(client, TEXT, 0, "../../etc/passwd").status_code in (404, 405)
    assert send(client, TEXT, 0, "A" * 64).status_code == 422
    assert client.delete(f"/v1/uploads/{HASH}").status_code == 204
    assert client.delete(f"/v1/uploads/{HASH}").status_code == 204
    assert client.get(f"/v1/uploads/{HASH}").status_code == 404


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"name": (None, "n")}, "`uploads` is missing"),
        ({"name": (None, "n"), "uploads": (None, HASH)}, "nothing of"),
        ({"name": (None, "n"), "uploads": (None, "x")}, "is no SHA-256"),
        ({"name": (None, "n"), "uploads": (None, HASH), "file": ("t", TEXT)}, "one of the two ways"),
    ],
)
def test_forms_that_name_no_file_are_refused(client: TestClient, form: dict[str, Any], said: str) -> None:
    answer = client.post("/v1/datasets", files=form)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert [problem["pointer"] for problem in answer.json()["errors"]] == ["/uploads"]
