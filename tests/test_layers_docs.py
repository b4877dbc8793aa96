"""The pages about layers are what the code says."""

import re
from pathlib import Path

from layers import mlp
from layers.model import DECLARATIONS
from layers.modules import activations
from layers.reference import page
from layers.training import INFERENCE, TRAINING

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


def test_an_activation_needs_its_two_entries_and_no_more():
    assert set(mlp.ACTIVATIONS) == set(activations.ACTIVATIONS)
