"""What `run.py` says where it cannot run: it lies beside downloaded artifacts, on machines that have nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layers.checkpoints.tokenizer_files import byte_tokenizer
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
    (tmp_path / "model.engine").touch()
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"has no onnxruntime: .* -m pip install onnxruntime==1.32.0"):
        loader.main()
    assert "runs by Layersweep's checkout" in (loader.missing_runtime({**described, "runtime": "tensorrt"}) or "")
    monkeypatch.undo()
    assert loader.missing_runtime(described) is None


def of_facts(**facts: object) -> dict[str, Any]:
    return {"dataset": {"name": "text", "facts": facts}}


@pytest.mark.parametrize(
    ("facts", "text", "tokens"),
    [
        ({"tokenizer": "byte", "vocabulary_size": 256}, "né", [0x6E, 0xC3, 0xA9]),
        ({"tokenizer": "char", "vocabulary": ["a", "é"], "vocabulary_size": 2}, "éa", [1, 0]),
        # A dataset whose file held tokens.
        ({"vocabulary_size": 12}, "7 11", [7, 11]),
    ],
)
def test_a_prompt_is_read_as_the_dataset_was(
    tmp_path: Path, facts: dict[str, object], text: str, tokens: list[int]
) -> None:
    encode, decode = loader.vocabulary(tmp_path, of_facts(**facts))
    assert encode(text) == tokens
    assert decode(tokens) == text


def test_parts_of_words_are_those_of_the_tokenizer_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_words = of_facts(tokenizer="bpe:256", tokenizer_sha256="0", vocabulary_size=256)
    with pytest.raises(SystemExit, match=r"has no tokenizer.json: `layersweep trial download` fetches"):
        loader.vocabulary(tmp_path, of_words)
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    encode, decode = loader.vocabulary(tmp_path, of_words)
    assert encode("to be") == list(b"to be")
    assert decode(list(b"to be")) == "to be"
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="-m pip install tokenizers"):
        loader.vocabulary(tmp_path, of_words)


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
    (tmp_path / "model.engine").touch()
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(SystemExit, match="has no onnxruntime"):
        loader.main()
