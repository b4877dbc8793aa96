"""A database that cannot be used: the command line says why, in a line and without its password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from layersweep.cli import app
from service.database.sessions import Database

PASSWORD = "geheim"

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    def invoke(url: str, *words: str) -> Any:
        monkeypatch.setenv("LAYERSWEEP_DATABASE_URL", url)
        monkeypatch.setenv("LAYERSWEEP_DATA_DIR", str(tmp_path))
        monkeypatch.delenv("LAYERSWEEP_SERVER", raising=False)
        found = CliRunner().invoke(app, words or ("db", "upgrade"))
        assert "Traceback" not in found.output
        assert found.exception is None or isinstance(found.exception, SystemExit)
        assert PASSWORD not in found.output
        return found

    return invoke


@pytest.mark.parametrize("command", [("db", "upgrade"), ("token", "list"), ("serve", "--port", "0")])
def test_the_driver_s_words_say_why_no_database_answers(run: Run, command: tuple[str, ...]) -> None:
    found = run(f"postgresql://layersweep:{PASSWORD}@127.0.0.1:1/layersweep", *command)
    assert found.exit_code == 1
    assert "the database does not answer: connection failed" in found.stderr
    assert "port 1" in found.stderr
    assert "Connection refused" in found.stderr


def test_a_missing_database_is_named(run: Run, postgres_url: str) -> None:
    url = make_url(postgres_url).set(database="nothing-here", password=PASSWORD)
    assert '"nothing-here" does not exist' in run(url.render_as_string(hide_password=False)).stderr


def test_a_password_that_is_not_encoded_is_refused_with_the_remedy(run: Run) -> None:
    found = run(f"postgresql://layersweep:p@{PASSWORD}/w0rd@127.0.0.1/layersweep")
    assert found.exit_code == 2
    assert "percent-encode" in found.stderr
    assert "w0rd" not in found.output


@pytest.mark.parametrize("command", [("db", "upgrade"), ("token", "list"), ("serve", "--port", "0")])
def test_a_database_of_a_newer_version_is_left_alone(run: Run, database: Database, command: tuple[str, ...]) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0099'"))
    found = run(database.url.render_as_string(hide_password=False), *command)
    assert found.exit_code == 1
    assert "is of a newer version of Layersweep (its schema is 0099" in found.stderr
    assert "install that version, or restore the backup" in found.stderr
    assert "db upgrade" not in found.stderr
