"""`layersweep fleet ray`: what it hands to the controller, and what it refuses before that. No Ray is needed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from layersweep.cli import app
from workers.fleet import controller
from workers.fleet.plan import Fleet
from workers.fleet.ray_cluster import WorkerOptions


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the controller was started with; it ends at once."""
    handed: list[Any] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(controller, "run", lambda *given: handed.extend(given) or 0)
    for name in ("LAYERSWEEP_TOKEN", "LAYERSWEEP_WORK_TOKEN", "LAYERSWEEP_SERVER", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return handed


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fleet", "ray", *arguments])


def test_limits_labels_and_a_token_for_the_workers_alone(handed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSWEEP_TOKEN", "reads")
    monkeypatch.setenv("LAYERSWEEP_WORK_TOKEN", "works")
    arguments = "--server http://s:1 --address head:6379 --max-gpus 8 --name h100 --accelerator H100 --labels gpu=h100"
    ended = call(*arguments.split(), "--slots", "4", "--idle-seconds", "60")
    assert ended.exit_code == 0, ended.output
    service, address, fleet, options = handed
    assert (service.server, address) == ("http://s:1", "head:6379")
    assert fleet == Fleet("h100", {"gpu": 8, "cpu": 0}, {"gpu": "h100"}, 4)
    assert options == WorkerOptions("http://s:1", "works", 60.0, None, "H100")


def test_without_a_token_of_their_own_the_workers_get_the_controller_s(
    handed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSWEEP_TOKEN", "both")
    assert call("--max-cpu-workers", "1").exit_code == 0
    assert (handed[1], handed[3].token) == ("auto", "both")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "a b"),
        ("--name", "-a"),
        ("--labels", "x"),
        ("--slots", "many"),
        ("--max-gpus", "-1"),
        ("--cpus", "0"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(handed: list[Any], arguments: tuple[str, str]) -> None:
    refused = call(*arguments)
    assert (refused.exit_code, handed) == (2, [])
    assert arguments[0] in refused.stderr


def test_without_ray_it_says_what_to_install(handed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused = call()
    assert (refused.exit_code, handed) == (2, [])
    assert "pip install -e '.[ray]'" in refused.stderr
