"""`layersweep token` and `project`: on the machine's database and over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from layersweep import Client, NotAuthorizedError
from layersweep.cli import app
from service.app import create_app
from service.settings import Settings

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line on a data folder of its own."""
    monkeypatch.setenv("LAYERSWEEP_DATA_DIR", str(tmp_path))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, list(arguments))


def test_the_first_token_is_made_on_the_machine_and_others_by_it(
    run: Callable[..., Result], serve: Callable[[FastAPI], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run("token", "create", "--name", "ana", "--scope", "admin", "--project", "*")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    url = serve(create_app(Settings(data_dir=tmp_path), start_scheduler=False))
    with pytest.raises(NotAuthorizedError), Client(url) as nobody:
        nobody.datasets()
    with Client(url, secret) as ana:
        ana.create_project("vision")
        record = ana.create_token("ci", ["submit"], project="vision", expires_in_days=1)
        assert [each["actor"] for each in ana.audit()][:2] == ["ana", "ana"]
        with Client(url, record["token"]) as ci:
            assert [each["name"] for each in ci.projects()] == ["vision"]
        ana.revoke_token(record["id"])
        with pytest.raises(NotAuthorizedError), Client(url, record["token"]) as ci:
            ci.datasets()
    monkeypatch.setenv("LAYERSWEEP_TOKEN", secret)
    listed = run("token", "list", "--server", url, "--json")
    assert [each["name"] for each in json.loads(listed.stdout)["items"]] == ["ci", "ana"]
    assert secret not in listed.stdout


def test_the_command_that_a_refusal_names_makes_a_token(
    run: Callable[..., Result], serve: Callable[[FastAPI], str], tmp_path: Path
) -> None:
    run("token", "create", "--name", "ana", "--scope", "admin")
    url = serve(create_app(Settings(data_dir=tmp_path), start_scheduler=False))
    with pytest.raises(NotAuthorizedError) as refused, Client(url) as nobody:
        nobody.datasets()
    (command,) = re.findall("`layersweep (token create [^`]*)`", str(refused.value))
    made = run(*command.replace("SCOPE", "read").split())
    assert made.exit_code == 0, made.output


def test_whoever_makes_the_first_token_is_told_that_it_closes_the_service(run: Callable[..., Result]) -> None:
    reader = run("token", "create", "--name", "reader", "--scope", "read")
    assert "from now on every request needs one" in reader.stderr
    assert "--scope admin --project '*' --database" in reader.stderr
    assert "the first token" not in run("token", "create", "--name", "second", "--scope", "read").stderr


def test_a_deployment_brings_its_own_token_along(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", SECRET)
    for _ in range(2):
        made = run("token", "create", "--name", "compose", "--scope", "admin", "--secret-from", "GIVEN")
        assert made.exit_code == 0, made.output
        assert SECRET not in made.output
    assert len(json.loads(run("token", "list", "--json").stdout)["items"]) == 1
    taken = run("token", "create", "--name", "workers", "--scope", "work", "--secret-from", "GIVEN")
    assert (taken.exit_code, "the token 'compose' already" in taken.output) == (2, True)
    monkeypatch.setenv("GIVEN", "short")
    refused = run("token", "create", "--name", "compose", "--scope", "admin", "--secret-from", "GIVEN")
    assert (refused.exit_code, "32 visible" in refused.output) == (2, True)


def test_a_token_is_revoked_by_its_name_where_no_other_has_it(run: Callable[..., Result]) -> None:
    for name in ("viewer", "twice", "twice"):
        assert run("token", "create", "--name", name, "--scope", "read").exit_code == 0
    revoked = run("token", "revoke", "viewer")
    assert (revoked.exit_code, revoked.stdout.startswith("viewer (01")) == (0, True)
    again, several = run("token", "revoke", "viewer"), run("token", "revoke", "twice")
    assert (again.exit_code, "no valid token is called 'viewer': give the id" in again.stderr) == (2, True)
    assert (several.exit_code, "2 valid tokens are called 'twice'" in several.stderr) == (2, True)


def test_what_cannot_be_is_said_in_a_sentence(run: Callable[..., Result]) -> None:
    scope = run("token", "create", "--name", "x", "--scope", "everything")
    assert (scope.exit_code, "read, submit, work, admin" in scope.output) == (2, True)
    project = run("token", "create", "--name", "x", "--scope", "read", "--project", "nowhere")
    assert (project.exit_code, "no project 'nowhere': `layersweep project create`" in project.output) == (2, True)
    assert run("token", "revoke", "0" * 26).exit_code == 2


def test_what_would_be_right_is_said_once(run: Callable[..., Result]) -> None:
    refused = run("project", "create", "Vision!")
    assert refused.exit_code == 2
    assert refused.stderr.count("use 1 to 63 of a-z, 0-9 and '-'") == 1


def test_projects_are_made_and_listed(run: Callable[..., Result]) -> None:
    assert run("project", "create", "vision").exit_code == 0
    assert run("project", "list").stdout.split() == ["default", "vision"]
    assert run("token", "create", "--name", "x", "--scope", "read", "--project", "vision").exit_code == 0
    assert "vision" in run("token", "list").stdout


def test_projects_are_limited(run: Callable[..., Result]) -> None:
    assert run("project", "create", "vision").exit_code == 0
    limited = run("project", "limit", "vision", "--max-running-trials", "4", "--max-priority", "-1")
    assert limited.stdout.strip() == ("The project vision may run 4 trials at once, with a priority of at most -1.")
    assert "vision: may run 4 trials at once" in run("project", "list").stdout
    assert run("project", "limit", "vision", "--max-running-trials", "none", "--max-priority", "none").exit_code == 0
    assert run("project", "list").stdout.split() == ["default", "vision"]
    for wrong in (["vision"], ["vision", "--max-priority", "high"], ["nowhere", "--max-priority", "1"]):
        assert run("project", "limit", *wrong).exit_code == 2


COMMANDS = [
    ["token", "list"],
    ["token", "revoke", "0" * 26],
    ["token", "create", "--name", "x", "--scope", "read"],
    ["project", "list"],
    ["project", "create", "vision"],
    ["project", "limit", "vision", "--max-priority", "1"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_service_that_is_set_is_asked_and_no_database_is_made(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERSWEEP_SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr("layersweep.cli.common.RETRY_SECONDS", 0)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3, result.output
    assert "On the service at http://127.0.0.1:9." in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [*COMMANDS[:2], COMMANDS[3], ["db", "prune"]], ids=" ".join)
def test_nothing_is_made_in_order_to_read_or_to_revoke(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, result.output
    assert f"there is no database {tmp_path}/data/layersweep.db" in result.stderr
    assert "LAYERSWEEP_SERVER" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_database_is_named_and_so_is_that_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "data" / "layersweep.db"
    made = CliRunner().invoke(app, COMMANDS[2])
    assert f"On the database {file}, which is new." in made.stderr
    assert f"On the database {file}." in CliRunner().invoke(app, COMMANDS[0]).stderr


def test_a_call_that_names_the_database_means_it(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSWEEP_SERVER", "http://127.0.0.1:9")
    assert run("project", "create", "vision", "--database").exit_code == 0
    assert run("project", "list", "--data-dir", str(tmp_path)).stdout.split() == ["default", "vision"]
    both = run("project", "list", "--database", "--server", "http://127.0.0.1:10")
    assert (both.exit_code, "leave one of them out" in both.stderr) == (2, True)
    monkeypatch.setenv("GIVEN", SECRET)
    refused = run("token", "create", "--name", "x", "--scope", "read", "--secret-from", "GIVEN")
    assert (refused.exit_code, "--database" in refused.stderr) == (2, True)


def test_a_token_is_made_in_the_project_that_is_set(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("project", "create", "vision").exit_code == 0
    monkeypatch.setenv("LAYERSWEEP_PROJECT", "vision")
    made = run("token", "create", "--name", "x", "--scope", "read")
    assert "in the project vision" in made.stderr


@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[2], ["serve", "--port", "0"], ["db", "upgrade"]])
def test_what_is_no_database_and_what_is_no_folder_is_a_sentence(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layersweep.db").write_text("no database")
    for data_dir in (tmp_path, tmp_path / "layersweep.db" / "data"):
        refused = CliRunner().invoke(app, [*command, "--data-dir", str(data_dir)])
        assert isinstance(refused.exception, SystemExit), refused.exception
        assert refused.exit_code in (1, 2)
        assert "error: " in refused.stderr


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSWEEP_DATABASE_URL", "postgresql://layersweep:hidden@127.0.0.1:9/layersweep")
    result = CliRunner().invoke(app, ["token", "list"])
    assert result.exit_code == 1
    assert "127.0.0.1:9/layersweep" in result.stderr
    assert "hidden" not in result.output
