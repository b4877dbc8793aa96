"""docs/ci.md determines parameters as it says, by each of its ways; its trials are finished without computing them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.layersweep.finisher import DOCUMENT, Finisher

PAGE = (Path(__file__).parents[2] / "docs" / "ci.md").read_text()

pytestmark = pytest.mark.skipif(
    any(shutil.which(command) is None for command in ("bash", "curl", "jq")), reason="bash, curl or jq is missing"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def job() -> str:
    text = blocks("yaml")[0]
    assert len(text.splitlines()) <= 20
    steps: list[dict[str, Any]] = yaml.safe_load(text)["jobs"]["determine"]["steps"]
    (script,) = (step["run"] for step in steps if "submit" in step.get("run", ""))
    return script


COMMANDS = {
    "the job": ["bash", "--noprofile", "--norc", "-e", "-c", job()],
    "curl": ["bash", "-c", blocks("bash")[0].replace("sleep 5", "sleep 0.2")],
    "Python": [sys.executable, "-c", blocks("python")[0]],
    "an event loop": [sys.executable, "-c", blocks("python")[1]],
}


@pytest.fixture
def run(live_service: str, finisher: Finisher, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Follows a way in a folder of its own, with its sweep documents."""
    finisher.start()
    known = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LAYERSWEEP_SERVER": live_service}
    known |= {"LAYERSWEEP_TOKEN": "lsw_any", "CI_JOB_ID": "17"}
    options: dict[str, Any] = {"env": known, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    return lambda way: subprocess.run(COMMANDS[way], **options)


@pytest.mark.parametrize("way", COMMANDS)
def test_parameters_are_determined(run: Callable[[str], Any], way: str, tmp_path: Path) -> None:
    for name in ("sweep", "small", "large"):
        (tmp_path / f"{name}.yaml").write_text(DOCUMENT.replace("small", name))
    ran = run(way)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    written = ["small.json", "large.json"] if way == "an event loop" else ["parameters.json"]
    for name in written:
        assert json.loads((tmp_path / name).read_text())["model"]["hidden_size"] in (16, 32)


@pytest.mark.parametrize(("way", "code"), [("the job", 7), ("curl", 1), ("Python", 1)])
def test_a_job_without_a_feasible_trial_fails_and_says_why(
    run: Callable[[str], Any], way: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(DOCUMENT + 'constraints: ["latency_ms_p50 <= 0.001"]\n')
    ran = run(way)
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert "6 of 6 trials broke latency_ms_p50 <= 0.001" in " ".join((ran.stdout + ran.stderr).split())
    assert not (tmp_path / "parameters.json").exists()
