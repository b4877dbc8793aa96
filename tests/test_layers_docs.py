"""The pages about layers are what the code says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from layers.declarations import mlp
from layers.declarations.inference.parameters import INFERENCE
from layers.declarations.model import DECLARATIONS
from layers.declarations.training import TRAINING
from layers.modules import activations
from layers.reference import page

ROOT = Path(__file__).parents[1]


def test_the_page_of_layers_is_what_make_docs_makes():
    assert (ROOT / "docs" / "layers.md").read_text() == page(), "run make docs"


def test_every_parameter_has_a_row():
    rows = re.findall(r"^\| `([a-z_.0-9]+)` \|", page().split("## model", 1)[1], re.MULTILINE)
    names = [*DECLARATIONS, *(f"training.{name}" for name in TRAINING), *(f"inference.{name}" for name in INFERENCE)]
    assert sorted(rows) == sorted(names)


def test_adding_a_layer_names_files_and_code_that_exist():
    text = (ROOT / "docs" / "add-a-layer.md").read_text()
    named = re.findall(r"`((?:layers|tests)/[a-z_/]+\.py)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    source = "\n".join((ROOT / name).read_text() for name in named)
    for word in re.findall(r"`(_?[A-Za-z_]+)`", text):
        assert word in source or word in ("split", "linear"), word


EXERCISE = """
import tempfile
from pathlib import Path
import torch
from layers.completion import complete
from layers.declarations.model import parameter_count
from layers.modules.model import build
from layers.reference import page
from tests.layers.combinations import DIFFERENT, combinations
from tests.layers.export.test_combinations import LARGEST_ERROR, parity_errors

model = complete("probe", {"kind": "norm", "hidden_size": 16, "norm.kind": "DynamicTanh", "norm.alpha": 0.7}, {})
module = build(model)
x = torch.randn(2, 3, 16)
torch.testing.assert_close(module(x), torch.tanh(0.7 * x))
assert parameter_count(model) == sum(each.numel() for each in module.parameters()) == 17
assert "`norm.alpha`" in page()
assert complete("probe", {"kind": "norm", "hidden_size": 16}, {}).get("norm.alpha") is None
walked = [each for each in combinations() if each.values.get("norm.kind") == "DynamicTanh"]
assert {each.values["kind"] for each in walked} >= {"norm", "decoder"}
group = [each for each in walked if each.values["kind"] == "norm"]
assert max(parity_errors(group, Path(tempfile.mkdtemp())).values()) <= LARGEST_ERROR
print("added", len(walked))
"""


def test_the_layer_that_the_page_adds_is_added(tmp_path):
    """The patch of docs/add-a-layer.md on a copy of the tree."""
    text = (ROOT / "docs" / "add-a-layer.md").read_text()
    (patch,) = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "layers", tmp_path / "layers", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "layers", tmp_path / "tests" / "layers", ignore=ignored)
    shutil.copy(ROOT / "tests" / "__init__.py", tmp_path / "tests")
    (tmp_path / "added.patch").write_text(patch)
    combinations = tmp_path / "tests" / "layers" / "combinations.py"
    written = combinations.read_text()
    combinations.write_text(written.replace('"norm.eps": 1e-3,', '"norm.eps": 1e-3,\n    "norm.alpha": 0.3,', 1))
    subprocess.run(["git", "apply", "added.patch"], cwd=tmp_path, check=True)
    (tmp_path / "exercise.py").write_text(EXERCISE)
    ran = subprocess.run(
        [sys.executable, "-P", "exercise.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("added "), ran.stderr


def test_an_activation_needs_its_two_entries_and_no_more():
    assert set(mlp.ACTIVATIONS) == set(activations.ACTIVATIONS)
