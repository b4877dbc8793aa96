"""An attempt's folder is there for the attempt, and not for ever after a worker that was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workers.processes.child import ROOT
from workers.processes.folders import attempt_folder


def test_it_is_gone_after_the_attempt(tmp_path: Path) -> None:
    with attempt_folder(tmp_path) as folder:
        (folder / "model.onnx").write_text("large")
    assert list(tmp_path.iterdir()) == []


def test_attempts_of_living_workers_are_left_alone(tmp_path: Path) -> None:
    with attempt_folder(tmp_path) as first, attempt_folder(tmp_path) as second:
        assert first != second
        assert first.is_dir()
        assert second.is_dir()


def test_what_a_killed_worker_left_is_removed_by_the_next_attempt(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, signal
from workers.processes.folders import attempt_folder
with attempt_folder(pathlib.Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    (abandoned,) = tmp_path.iterdir()
    with attempt_folder(tmp_path):
        assert not abandoned.exists()
