"""Other weights in a graph that was exported before: the same graph as an export of them gives, or none at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from layers.completion import complete
from layers.export.onnx_export import cast_copy, export
from layers.export.transplant import Transplant, drawn_copy, has_folded_tables
from tests.layers.combinations import FACTS, Combination, combinations, drawn, lively
from tests.layers.export.test_combinations import GROUPED, LARGEST_ERROR, Several, groups


def _exported(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, outputs: int) -> Path:
    names = [f"input_{index}" for index in range(len(inputs))]
    results = [f"output_{index}" for index in range(outputs)]
    export(module, inputs, path, opset=17, input_names=names, output_names=results)
    return path


def _error(module: nn.Module, inputs: tuple[torch.Tensor, ...], graph: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = session.run(None, {f"input_{index}": value.numpy() for index, value in enumerate(inputs)})
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    return max(
        float(np.linalg.norm(ours - theirs.numpy()) / np.linalg.norm(theirs.numpy()))
        for ours, theirs in zip(found, expected, strict=True)
    )


def _check(group: list[Combination], folder: Path) -> float | None:
    """The error of a graph into which the weights of `lively` modules were put; None where there is no transplant.

    Two draws are exported: what differs between them and holds no parameter would stay as it was drawn.
    """
    module = Several([lively(each.completed()) for each in group])
    inputs = tuple(drawn(spec) for spec in group[0].signature().inputs)
    transplants: list[Transplant] = []
    for seed in (0, 1):
        other = drawn_copy(module, seed)
        graph = _exported(other, inputs, folder / f"{seed}.onnx", len(group))
        transplant = Transplant.of(graph, other)
        if transplant is None:
            return None
        transplants.append(transplant)
    first, second = (transplant.unmatched() for transplant in transplants)
    assert first.keys() == second.keys()
    changed = [name for name in first if not np.array_equal(first[name], second[name])]
    assert changed == [], f"{[each.id for each in group]}: calculated of a parameter, and in no parameter's place"
    transplants[0].write(module, folder / "other.onnx")
    return _error(module, inputs, folder / "other.onnx")


def test_every_layer_alone_takes_other_weights(tmp_path: Path) -> None:
    walked = [each for each in combinations() if each.values["kind"] in GROUPED]
    for group in groups(walked):
        error = _check(group, tmp_path)
        assert error is not None
        assert error <= LARGEST_ERROR


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("of_layers", [{}, {"attention.dtype": "float32", "embedding.dtype": "float32"}])
def test_the_graph_is_that_of_an_export_of_the_weights(tmp_path: Path, dtype: str, of_layers: dict[str, str]) -> None:
    decoder = {"num_layers": 2, "hidden_size": 32, "attention.num_attention_heads": 4, "norm.kind": "RmsNorm"}
    model = complete("causal_lm", {"kind": "decoder", **decoder, "dtype": dtype, **of_layers}, FACTS["causal_lm"])
    module = cast_copy(lively(model), dtype)
    tokens = (torch.zeros((2, 12), dtype=torch.int32),)
    other = drawn_copy(module)
    transplant = Transplant.of(_exported(other, tokens, tmp_path / "drawn.onnx", 1), other)
    assert transplant is not None
    transplant.write(module, tmp_path / "written.onnx")
    _exported(module, tokens, tmp_path / "exported.onnx", 1)
    assert (tmp_path / "written.onnx").read_bytes() == (tmp_path / "exported.onnx").read_bytes()


def test_a_table_of_positions_may_be_longer_than_the_sequence(tmp_path: Path) -> None:
    (walked,) = (each for each in combinations() if each.id == "encoder_decoder/base")
    error = _check([walked], tmp_path)
    assert error is not None
    assert error <= LARGEST_ERROR


def test_a_table_that_is_gathered_from_has_no_transplant(tmp_path: Path) -> None:
    class Gathered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.rand(6, 4))
            self.register_buffer("rows", torch.tensor([3, 1, 2]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.table[self.rows]

    module = drawn_copy(Gathered())
    assert Transplant.of(_exported(module, (torch.zeros(3, 4),), tmp_path / "graph.onnx", 1), module) is None


def test_parameters_that_are_alike_have_no_transplant(tmp_path: Path) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    module = nn.Sequential(first, second)
    graph = _exported(module, (torch.zeros(3, 4),), tmp_path / "graph.onnx", 1)
    assert Transplant.of(graph, module) is not None
    with torch.no_grad():
        second.bias.copy_(first.bias)
    assert Transplant.of(graph, module) is None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_combination_takes_other_weights_or_says_that_it_does_not(tmp_path: Path) -> None:
    for each in combinations():
        error = _check([each], tmp_path)
        assert (error is None) is has_folded_tables(each.completed()), each.id
        assert error is None or error <= LARGEST_ERROR, each.id
