"""`layersweep sweep check` as somebody with a file and a target uses it: without a service wherever that can be."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from layersweep import Client
from layersweep.cli import app
from layersweep.cli.common import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_WRONG_CALL
from tests.layersweep.finisher import DOCUMENT
from workers.engine.tensorrt import cuda

Check = Callable[..., Result]


def document(tmp_path: Path, model: dict[str, object], dataset: str = "python-topics") -> Path:
    """The small sweep with some of its model's parameters changed."""
    content = yaml.safe_load(DOCUMENT)
    content["dataset"] = dataset
    content["model"] |= {"num_layers": 1, "hidden_size": 16, "mlp": {"kind": "MLP"}, **model}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def check() -> Iterator[Check]:
    """Runs the command for compute capability 7.5 where no service answers, or that of `server`."""
    pytest.importorskip("tensorrt_rtx")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"

        def invoke(path: Path, *arguments: str, server: str = nobody) -> Result:
            given = ["sweep", "check", str(path), "--compute-capability", "7.5", "--server", server, *arguments]
            return CliRunner().invoke(app, given)

        yield invoke


def test_over_a_built_in_dataset_it_takes_no_service(check: Check, tmp_path: Path) -> None:
    checked = check(document(tmp_path, {"dtype": {"values": ["float32", "float16"]}}), "--json")
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)
    assert (found["points"], found["outcomes"]) == (2, {"builds": 1, "infeasible": 1})
    (reason,) = found["reasons"]
    assert (reason["outcome"], reason["points"], reason["shared"]) == ("infeasible", 1, {"dtype": "float32"})
    assert "needs compute capability 8.0, this is 7.5" in reason["reason"]
    assert [finding["parameters"]["dtype"] for finding in found["findings"] if finding["outcome"] == "builds"] == [
        "float16"
    ]


def test_people_read_how_many_build_and_why_others_do_not(check: Check, tmp_path: Path) -> None:
    values = {"dtype": {"values": ["float32", "bfloat16"]}, "hidden_size": {"values": [16, 32]}}
    checked = check(document(tmp_path, values))
    assert checked.exit_code == EXIT_REFUSED
    said = " ".join(checked.stdout.split())
    assert "0 of 4 points (the whole space) build with tensorrt_rtx" in said
    assert [said.count(f"dtype={name}") for name in ("float32", "bfloat16")] == [1, 1]
    assert said.count("2 infeasible") == 2
    assert max(map(len, checked.stdout.splitlines())) <= 120, "the width of a log"


def test_without_a_gpu_it_says_for_which_it_built(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    if cuda.device_count():
        pytest.skip("this machine has a GPU, which it builds for")
    path = document(tmp_path, {"dtype": "float16"})
    checked = CliRunner().invoke(app, ["sweep", "check", str(path)])
    assert "for every GPU that it knows: no --compute-capability was given." in " ".join(checked.stdout.split())


def test_of_a_dataset_that_was_uploaded_the_service_is_asked(
    check: Check, tmp_path: Path, client: Client, live_service: str
) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("a rose is a rose is a rose\n" * 200)
    client.add_dataset("poem", text, tokenizer="char")
    path = document(tmp_path, {"dtype": "float32"}, dataset="poem")
    asked = check(path, "--json", server=live_service)
    assert json.loads(asked.stdout)["outcomes"] == {"infeasible": 1}
    alone = check(path)
    assert alone.exit_code == EXIT_UNREACHABLE
    said = " ".join(alone.stderr.split())
    assert "the dataset 'poem'" in said
    assert "built in are python-topics, digits" in said
    assert "`layersweep serve`" in said


def test_what_is_wrong_with_a_document_is_told_with_its_place(check: Check, tmp_path: Path) -> None:
    checked = check(document(tmp_path, {"hidden_siz": 3}))
    assert checked.exit_code == EXIT_WRONG_CALL
    assert "/model/hidden_siz" in checked.stderr
    assert "did you mean hidden_size" in checked.stderr
