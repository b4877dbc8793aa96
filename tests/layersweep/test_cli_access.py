"""`layersweep token` and `project`: on the machine's database and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from layersweep import Client, NotAuthorized
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
    with pytest.raises(NotAuthorized), Client(url) as nobody:
        nobody.datasets()
    with Client(url, secret) as ana:
        ana.create_project("vision")
        record = ana.create_token("ci", ["submit"], project="vision", expires_in_days=1)
        assert [each["actor"] for each in ana.audit()][:2] == ["ana", "ana"]
        with Client(url, record["token"]) as ci:
            assert [each["name"] for each in ci.projects()] == ["vision"]
        ana.revoke_token(record["id"])
        with pytest.raises(NotAuthorized), Client(url, record["token"]) as ci:
            ci.datasets()
    monkeypatch.setenv("LAYERSWEEP_TOKEN", secret)
    listed = run("token", "list", "--server", url, "--json")
    assert [each["name"] for each in json.loads(listed.stdout)["items"]] == ["ci", "ana"]
    assert secret not in listed.stdout


def test_a_deployment_brings_its_own_token_along(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", SECRET)
    for _ in range(2):
        made = run("token", "create", "--name", "compose", "--scope", "admin", "--secret-from", "GIVEN")
        assert made.exit_code == 0, made.output
        assert SECRET not in made.output
    assert len(json.loads(run("token", "list", "--json").stdout)["items"]) == 1
    monkeypatch.setenv("GIVEN", "short")
    refused = run("token", "create", "--name", "compose", "--scope", "admin", "--secret-from", "GIVEN")
    assert (refused.exit_code, "32 visible" in refused.output) == (2, True)


def test_what_cannot_be_is_said_in_a_sentence(run: Callable[..., Result]) -> None:
    scope = run("token", "create", "--name", "x", "--scope", "everything")
    assert (scope.exit_code, "read, submit, work, admin" in scope.output) == (2, True)
    project = run("token", "create", "--name", "x", "--scope", "read", "--project", "nowhere")
    assert (project.exit_code, "no project 'nowhere'" in project.output) == (2, True)
    assert run("token", "revoke", "0" * 26).exit_code == 2


def test_projects_are_made_and_listed(run: Callable[..., Result]) -> None:
    assert run("project", "create", "vision").exit_code == 0
    assert run("project", "list").stdout.split() == ["default", "vision"]
    assert run("token", "create", "--name", "x", "--scope", "read", "--project", "vision").exit_code == 0
    assert "vision" in run("token", "list").stdout
