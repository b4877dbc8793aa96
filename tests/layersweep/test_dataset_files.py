"""Large files of datasets go in pieces, and on where a connection broke."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2
import pytest

from layersweep import Client, UnreachableError, dataset_files

CONTENT = bytes(range(256)) * 4


class Uploads:
    """A service that keeps what it is sent, and whose connections break after some pieces."""

    def __init__(self, *, breaks_after: int) -> None:
        self.received = b""
        self.pieces = 0
        self.registered = ""
        self._breaks_after = breaks_after

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            self.registered = request.read().decode()
            return httpx2.Response(201, json={"id": "D"})
        if request.method == "GET" and not self.received:
            return httpx2.Response(404, json={"type": "urn:layersweep:problem:not-found", "detail": "nothing"})
        if request.method == "PATCH":
            assert int(request.headers["Upload-Offset"]) == len(self.received)
            self.pieces += 1
            self.received += request.read()
            if self.pieces > self._breaks_after:
                raise httpx2.ReadError("the connection broke")
        return httpx2.Response(200, json={"received_bytes": len(self.received)})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dataset_files, "WHOLE_BYTES", 100)
    monkeypatch.setattr(dataset_files, "PIECE_BYTES", 100)
    path = tmp_path / "text"
    path.write_bytes(CONTENT)
    return path


def client_of(service: Uploads) -> Client:
    client = Client("http://service.test", transport=httpx2.MockTransport(service))
    client.transport._sleep = lambda seconds: None
    return client


def test_an_upload_goes_on_where_its_connection_broke(file: Path) -> None:
    service = Uploads(breaks_after=3)
    client_of(service).add_dataset("text", file)
    assert service.received == CONTENT
    assert service.pieces == 11, "nothing is sent twice"
    assert hashlib.sha256(CONTENT).hexdigest() in service.registered


def test_another_call_goes_on_where_the_last_one_was_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Uploads(breaks_after=2)
    monkeypatch.setattr(dataset_files, "MOST_FAILURES", 0)
    with pytest.raises(UnreachableError):
        client_of(service).add_dataset("text", file)
    assert len(service.received) == 300
    service._breaks_after = 100
    client_of(service).add_dataset("text", file)
    assert (service.received, service.pieces) == (CONTENT, 11)
    assert service.registered
