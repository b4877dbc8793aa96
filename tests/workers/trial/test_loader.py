"""What `run.py` says where it cannot run: it lies beside downloaded artifacts, on machines that have nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workers.trial.download import loader


def test_a_python_without_numpy_is_told_what_to_install() -> None:
    ran = subprocess.run(
        # -S: without the packages of the environment.
        [sys.executable, "-I", "-S", loader.__file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert f"{sys.executable} has no NumPy" in ran.stderr
    assert "pip install numpy onnxruntime" in ran.stderr


def test_a_python_without_the_runtime_is_told_which_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"runtime": "onnxruntime", "environment": {"runtime_version": "1.32.0"}, "metrics": {}}
    (tmp_path / "configuration.json").write_text(json.dumps(described))
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"has no onnxruntime: .* -m pip install onnxruntime==1.32.0"):
        loader.main()
    assert "runs by Layersweep's checkout" in (loader.missing_runtime({**described, "runtime": "tensorrt"}) or "")
    monkeypatch.undo()
    assert loader.missing_runtime(described) is None


def test_it_runs_what_it_lies_beside_and_says_which_folder_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loader, "__file__", str(tmp_path / "run.py"))
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "elsewhere")])
    with pytest.raises(SystemExit, match="2"):
        loader.main()
    assert f"{tmp_path / 'elsewhere'} is no folder of a downloaded trial" in capsys.readouterr().err
    described = {"runtime": "onnxruntime", "environment": {}, "metrics": {}}
    (tmp_path / "configuration.json").write_text(json.dumps(described))
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(SystemExit, match="has no onnxruntime"):
        loader.main()
