"""The workflow of GitHub Actions runs what there is: targets, files and commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from layersweep.cli import app

ROOT = Path(__file__).parents[2]
JOBS: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
COMMANDS = "\n".join(step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step)


def test_targets_and_files_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", COMMANDS)) <= targets
    compared = re.findall(r"git diff --exit-code (?:-- )?(\S+)", COMMANDS)
    assert compared
    for path in [*re.findall(r"(?:examples|deploy)/[\w./-]*\w", COMMANDS), *compared]:
        assert (ROOT / path).exists(), path


def test_all_that_a_change_must_pass_is_run() -> None:
    required = set(re.findall(r"^make ([a-z-]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert required <= set(re.findall(r"\bmake ([a-z-]+)", COMMANDS))


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\blayersweep ((?:sweep )?[a-z]+)", COMMANDS))))
def test_commands_exist(command: str) -> None:
    assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0


def test_jobs_have_limits_and_no_rights_to_write() -> None:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert content["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in JOBS.values())
