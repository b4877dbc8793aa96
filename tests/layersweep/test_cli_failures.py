"""Every command against what is no service, answers nonsense or goes away: a line or two and an exit code."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from layersweep import UnreachableError
from layersweep.cli import app
from layersweep.cli.common import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_WRONG_CALL,
    PATIENT_RETRY_SECONDS,
    connect_patiently,
)

ID = "01J0000000000000000000000A"
COMMANDS: dict[str, list[str]] = {
    "sweep assert": ["it", "--metric", "latency_ms_p50 <= 2"],
    "token create": ["--name", "x", "--scope", "read"],
    "token list": [],
    "token revoke": [ID],
    "project create": ["vision"],
    "project list": [],
    "webhook create": ["https://example.com/hook"],
    "webhook list": [],
    "webhook change": [ID, "--url", "https://example.com/hook"],
    "webhook enable": [ID],
    "webhook disable": [ID],
    "webhook rotate": [ID],
    "webhook ping": [ID],
    "webhook deliveries": [ID],
    "webhook resend": [ID, ID],
    "webhook delete": [ID],
    "sweep submit": ["DOCUMENT"],
    "sweep validate": ["DOCUMENT"],
    "sweep list": [],
    "sweep show": ["a name"],
    "sweep watch": [ID],
    "sweep cancel": [ID],
    "sweep pause": [ID],
    "sweep resume": [ID],
    "sweep clone": [ID],
    "sweep delete": [ID],
    "sweep export": [ID, "OUT/all.csv"],
    "sweep extend": [ID, "--trials", "1"],
    "sweep prioritize": [ID, "1"],
    "sweep annotate": [ID, "--note", "x"],
    "leaderboard": [ID],
    "recommendation": [ID],
    "confirm": [ID],
    "report": [ID, "--out", "OUT/report.md"],
    "export": [ID, "--optuna", "sqlite:///OUT/study.db"],
    "trial show": [ID],
    "trial download": [ID, "OUT/folder"],
    "trial promote": [ID],
    "dataset add": ["--name", "x", "--file", "DOCUMENT"],
    "dataset list": [],
    "dataset show": ["x"],
    "dataset delete": ["x"],
    "dataset tokenizer": ["x", "--out", "OUT/tokenizer.json"],
    "checkpoint add": ["OUT/checkpoint"],
    "checkpoint list": [],
    "checkpoint show": ["x"],
    "checkpoint delete": ["x"],
    "layers": [],
    "presets": [],
    "workers": [],
    "project limit": ["a-project", "--max-priority", "1"],
    "queue": [],
}
LOCAL = {
    "demo",
    "fleet ray",
    "schema",
    "serve",
    "worker",
    "sweep check",
    "db upgrade",
    "db backup",
    "db restore",
    "db prune",
}
"""Commands that work on this machine: what may go wrong with those is told elsewhere."""

HTML = b"<!doctype html><title>Welcome to nginx!</title>"
ANSWERS: dict[str, bytes] = {
    "closes at once": b"",
    "is no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "closes in the middle": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{",
    "HTML": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(HTML), HTML),
    "HTML of an error": b"HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
    % (len(HTML), HTML),
    "sends on": b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
    "a list": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
    "an empty object": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\noops",
    "wrong errors": b'HTTP/1.1 422 No\r\nContent-Length: 33\r\n\r\n{"detail": "no", "errors": ["no"]}'[:-1] + b"}",
    "no retry time": "HTTP/1.1 429 No\r\nRetry-After: ²\r\nContent-Length: 0\r\n\r\n".encode("latin-1"),
}

FOR_ALL = {"closes in the middle", "HTML", "an empty object"}
"""Tried with every command; the others are read by the same code, whichever asks."""


def leaves(command: Any, name: str = "") -> Iterator[str]:
    for each, found in getattr(command, "commands", {}).items():
        whole = f"{name} {each}".strip()
        yield from leaves(found, whole) if getattr(found, "commands", None) else [whole]


def test_every_command_is_tried_here() -> None:
    assert set(leaves(typer.main.get_command(app))) == COMMANDS.keys() | LOCAL


@pytest.fixture(scope="module")
def answering() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers whatever it is asked with these bytes, and closes; returns its address."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    received = b""
                    while b"\r\n\r\n" not in received and (piece := connection.recv(65536)):
                        received += piece
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    servers: dict[bytes, str] = {}
    yield lambda answer: servers.get(answer) or servers.setdefault(answer, start(answer))
    for listener in listeners:
        listener.close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Runs a command of the table against a server."""
    monkeypatch.setattr("layersweep.cli.common.RETRY_SECONDS", 0)
    monkeypatch.setattr("layersweep.cli.common.PATIENT_RETRY_SECONDS", 0)
    monkeypatch.setattr("layersweep.sweep.blocking.RESTART_PATIENCE_SECONDS", 0)
    (tmp_path / "small.yaml").write_text("name: small")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"weights")

    def invoke(command: str, server: str) -> Any:
        given = [
            each.replace("DOCUMENT", str(tmp_path / "small.yaml")).replace("OUT", str(tmp_path))
            for each in COMMANDS[command]
        ]
        return CliRunner().invoke(app, [*command.split(), *given, "--server", server])

    return invoke


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_none_ends_every_command_in_a_line(
    answer: str, answering: Callable[[bytes], str], run: Callable[[str, str], Any], tmp_path: Path
) -> None:
    server = answering(ANSWERS[answer])
    for command in COMMANDS if answer in FOR_ALL else ("sweep list", "sweep submit", "report", "token revoke"):
        ended = run(command, server)
        said = f"{command}: {ended.output}"
        assert isinstance(ended.exception, SystemExit), f"{said}{ended.exception!r}"
        assert ended.exit_code in (EXIT_REFUSED, EXIT_WRONG_CALL, EXIT_UNREACHABLE), said
        assert "error: " in ended.stderr, said
        assert len(ended.stderr.splitlines()) <= 4, said
        assert {each.name for each in tmp_path.iterdir()} == {"small.yaml", "checkpoint"}, said


def test_no_service_ends_every_command_in_a_line(run: Callable[[str, str], Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for command in COMMANDS:
            ended = run(command, server)
            assert ended.exit_code == EXIT_UNREACHABLE, f"{command}: {ended.output}{ended.exception!r}"
            assert "layersweep serve" in ended.stderr


@pytest.mark.parametrize("command", ["sweep submit", "sweep watch", "recommendation"])
def test_the_commands_that_determine_parameters_in_a_job_try_again(
    command: str, run: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layersweep.cli.common.PATIENT_RETRY_SECONDS", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ended = run(command, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert ended.exit_code == EXIT_UNREACHABLE
    assert "Trying again" in ended.stderr


def test_a_command_that_a_job_runs_bears_a_restart_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = connect_patiently(f"http://127.0.0.1:{taken.getsockname()[1]}")
        delays: list[float] = []
        client.transport._sleep = delays.append
        with pytest.raises(UnreachableError):
            client.datasets()
    assert 25 < sum(delays) <= PATIENT_RETRY_SECONDS
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no service answers at http://127.0.0.1:")
    assert line.endswith("Trying again for 30 s.")


def test_a_reason_that_ends_with_a_period_gets_no_second_one(capsys: pytest.CaptureFixture[str]) -> None:
    client = connect_patiently("http://127.0.0.1:9")
    assert client.transport.on_retry is not None
    client.transport.on_retry(UnreachableError("Server disconnected without sending a response."), 30.0)
    assert capsys.readouterr().err == "Server disconnected without sending a response. Trying again for 30 s.\n"


@pytest.mark.parametrize(("server", "token"), [("localhost:8420", "secret"), ("http://127.0.0.1:9", "se\ncret")])
def test_a_worker_refuses_what_is_no_address_and_no_token(
    server: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSWEEP_TOKEN", token)
    refused = CliRunner().invoke(app, ["worker", "--server", server])
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1), refused.output
    assert token not in refused.stderr


@pytest.mark.parametrize("answer", ANSWERS)
def test_tab_offers_nothing_of_an_answer_that_is_none(answer: str, answering: Callable[[bytes], str]) -> None:
    words = {"COMP_WORDS": "layersweep leaderboard sm", "COMP_CWORD": "2", "_LAYERSWEEP_COMPLETE": "complete_bash"}
    ended = CliRunner().invoke(app, env={"LAYERSWEEP_SERVER": answering(ANSWERS[answer]), **words})
    assert (ended.exit_code, ended.stdout.strip(), ended.stderr) == (0, "", "")


@pytest.mark.parametrize("call", [("sweep", "show", "\udce9t\udce9"), ("sweep", "list", "--name", "\udce9")])
def test_what_is_no_text_is_not_sent(call: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*call, "--server", "http://127.0.0.1:1"])
    assert answer.exit_code == EXIT_WRONG_CALL
    assert "is no text in UTF-8" in answer.stderr
    assert "udce9" in answer.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "99999", "LAYERSWEEP_PORT should be less than or equal to 65535"),
        ("TRUSTED_HOSTS", "my.host", "LAYERSWEEP_TRUSTED_HOSTS is no JSON: write a list as"),
        ("SECRET_KEY", "short", "LAYERSWEEP_SECRET_KEY has fewer than 32 characters"),
        ("HEARTBEAT_SECONDS", "30", "LAYERSWEEP_HEARTBEAT_SECONDS must be less than LAYERSWEEP_LEASE_SECONDS"),
        ("LEADER_SECONDS", "inf", "LAYERSWEEP_LEADER_SECONDS should be less than or equal to"),
        ("LOG_DAYS", "1e12", "LAYERSWEEP_LOG_DAYS should be less than or equal to"),
    ],
)
def test_a_setting_that_is_not_usable_is_named(variable: str, value: str, said: str) -> None:
    answer = CliRunner().invoke(app, ["serve"], env={f"LAYERSWEEP_{variable}": value})
    assert answer.exit_code == EXIT_WRONG_CALL
    assert f"error: the settings are not usable: {said}" in " ".join(answer.stderr.split())
