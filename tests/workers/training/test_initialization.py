"""A model that begins with the weights of a checkpoint: which it takes, and what it says of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from layers.completion import complete
from layers.modules.model import build
from tests.service.checkpoint_files import VALUES
from workers.engine.protocol import RequestError
from workers.training.initialization import begin_with


def _module(seed: int, **changes: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    facts = {"vocabulary_size": 20, "sequence_length": 8}
    return build(complete("causal_lm", {**VALUES, **changes}, facts)).eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file({name: value.clone() for name, value in _module(0).state_dict().items()}, tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("kind", ["GatedMLP", "FusedGatedMLP"])
def test_the_same_model_begins_where_the_checkpoint_ended(kind: str, weights: Path) -> None:
    module = _module(1, **{"mlp.kind": kind})
    taken, left = begin_with(module, weights)
    assert (taken, left) == (len(module.state_dict()), {})
    tokens = torch.arange(8, dtype=torch.int32)[None]
    torch.testing.assert_close(module(tokens), _module(0)(tokens))


def test_tensors_of_other_shapes_are_left_and_named(weights: Path) -> None:
    module = _module(1, **{"num_layers": 2, "mlp.ffn_hidden_size": 48})
    before = module.state_dict()["stack.layers.0.mlp.proj.weight"].clone()
    _, left = begin_with(module, weights)
    assert left["stack.layers.0.mlp.proj.weight"] == "16 x 32 in the checkpoint, 16 x 48 here"
    assert left["stack.layers.1.attention.qkv.weight"] == "the checkpoint has none"
    assert "stack.layers.0.attention.qkv.weight" not in left
    torch.testing.assert_close(module.state_dict()["stack.layers.0.mlp.proj.weight"], before)


def test_a_checkpoint_of_which_nothing_fits_is_refused(weights: Path) -> None:
    with pytest.raises(RequestError, match="no tensor of the model has the name and the shape"):
        begin_with(_module(1, hidden_size=24), weights)
