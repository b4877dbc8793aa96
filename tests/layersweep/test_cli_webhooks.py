"""`layersweep webhook` and the client's webhooks, against a service."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from layersweep.cli import app
from service.app import create_app
from service.settings import Settings


@pytest.fixture
def run(tmp_path: Path, serve: Callable[[FastAPI], str]) -> Callable[..., Result]:
    """Runs `layersweep webhook` on a service of its own, which sends nothing."""
    url = serve(create_app(Settings(data_dir=tmp_path), start_scheduler=False))
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, ["webhook", *arguments, "--server", url])


def test_a_webhook_is_made_looked_at_changed_and_deleted(run: Callable[..., Result]) -> None:
    assert "No webhooks yet" in run("list").output
    made = run("create", "https://example.com/hook", "--event", "sweep.failed")
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("whsec_")
    assert "not shown again" in made.stderr
    (record,) = json.loads(run("list", "--json").stdout)["items"]
    assert (record["url"], record["events"], record["enabled"]) == ("https://example.com/hook", ["sweep.failed"], True)
    hook = record["id"]
    assert hook in run("list").stdout

    rotated = run("rotate", hook, "--json")
    assert json.loads(rotated.stdout)["secret"] not in (None, made.stdout.strip())
    changed = run("change", hook, "--url", "https://example.com/other", "--event", "sweep.completed")
    assert "https://example.com/other is told of sweep.completed" in " ".join(changed.stdout.split())
    assert run("change", hook).exit_code == 2

    assert "Nothing was sent yet" in run("deliveries", hook).stdout
    delivery = json.loads(run("ping", hook, "--json").stdout)
    assert delivery["id"] in run("deliveries", hook).stdout
    assert [each["id"] for each in json.loads(run("deliveries", hook, "--json").stdout)["items"]] == [delivery["id"]]
    assert run("resend", hook, delivery["id"]).exit_code == 1, "it is pending"

    assert run("disable", hook).exit_code == 0
    assert run("ping", hook).exit_code == 1
    assert run("enable", hook).exit_code == 0
    assert run("delete", hook).exit_code == 0
    assert json.loads(run("list", "--json").stdout)["items"] == []


def test_a_refused_url_is_told_in_words(run: Callable[..., Result]) -> None:
    refused = run("create", "http://169.254.169.254/latest")
    assert refused.exit_code == 2
    assert "not a public address" in " ".join(refused.stderr.split())
