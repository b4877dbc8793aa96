"""A worker's token can be replaced in its file while the worker runs: no call, result or file is lost."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import pytest

from layersweep import Client, NotAuthorizedError, files
from layersweep.transport import BearerToken
from workers.service.client import ServiceClient, TokenRefusedError, UnreachableError, retry_while_unreachable


class Gate:
    """A service that knows one token."""

    def __init__(self, refusal: int = 401) -> None:
        self.right = "old"
        self.refusal = refusal
        self.seen: list[str] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.seen.append(token)
        if token != self.right:
            return httpx2.Response(self.refusal, json={"detail": "this token was revoked"})
        self.bodies.append(request.read())
        return httpx2.Response(200, json={"items": [], "next_page_token": None})


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "token"
    file.write_text("old\n")
    for name in ("LAYERSWEEP_TOKEN", "LAYERSWEEP_TOKEN_SOURCE"):
        # So that what is read below is taken back afterwards.
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("LAYERSWEEP_TOKEN_FILE", str(file))
    files.read_variables(os.environ)
    return file


def worker_s_client(gate: Gate) -> ServiceClient:
    token = BearerToken.of_environment()
    return ServiceClient("http://service", token, transport=httpx2.MockTransport(gate))


@pytest.mark.parametrize("refusal", [401, 429])
def test_the_token_is_read_again_where_the_service_refuses_it(token_file: Path, refusal: int) -> None:
    gate = Gate(refusal)
    client = worker_s_client(gate)
    client.report("T0", 1, {"log": "a"})
    gate.right = "new"
    token_file.write_text("new\n")
    client.report("T0", 1, {"log": "b"})
    client.report("T0", 1, {"log": "c"})
    assert gate.seen == ["old", "old", "new", "new"]
    assert [b'"b"' in body for body in gate.bodies] == [False, True, False]


def test_a_result_is_kept_until_the_token_is_replaced(token_file: Path, tmp_path: Path) -> None:
    gate = Gate()
    client = worker_s_client(gate)
    gate.right = "new"
    tries = 0

    def wait(seconds: float) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            token_file.write_text("new\n")

    retry_while_unreachable(lambda: client.finish("T0", 1, {"outcome": "complete"}), seconds=600, wait=wait)
    assert gate.seen == ["old"] * 4 + ["new"]

    gate.right = "newer"
    token_file.write_text("newer\n")
    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * 100_000)
    retry_while_unreachable(lambda: client.upload("T0", 1, "weights", weights, "digest"), seconds=600, wait=lambda _: 0)
    assert gate.bodies[-1] == b"w" * 100_000


def test_a_token_that_came_from_no_file_stays_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAYERSWEEP_TOKEN_SOURCE", raising=False)
    monkeypatch.setenv("LAYERSWEEP_TOKEN", "wrong")
    gate = Gate()
    with pytest.raises(TokenRefusedError, match="revoked") as raised:
        worker_s_client(gate).queue()
    assert isinstance(raised.value, UnreachableError), "a result is offered again for a while"
    assert gate.seen == ["wrong"]


def test_the_command_line_s_client_reads_it_again_too(token_file: Path) -> None:
    gate = Gate()
    with Client("http://service", transport=httpx2.MockTransport(gate)) as client:
        gate.right = "new"
        with pytest.raises(NotAuthorizedError):
            client.datasets()
        token_file.write_text("new\n")
        assert client.datasets() == []
