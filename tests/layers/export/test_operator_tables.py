"""The lists of operators: made once by all exports, and torch is as it was after each."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

from layers.export.onnx_export import export


def _exported(path: Path) -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU(approximate="tanh"), nn.Softmax(-1))
    export(module, (torch.zeros(2, 4),), path, opset=19, input_names=("x",))
    return path.read_bytes()


def test_exports_list_the_operators_of_onnx_once_and_write_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[int] = []
    own = _registration.ONNXRegistry.from_torchlib

    def from_torchlib(opset_version: int) -> _registration.ONNXRegistry:
        listed.append(opset_version)
        return own(opset_version=opset_version)

    replaced = staticmethod(from_torchlib)
    monkeypatch.setattr(_registration.ONNXRegistry, "from_torchlib", replaced)
    monkeypatch.setattr("layers.export.operator_tables._registries", {})
    written = set[bytes]()
    for _ in range(2):
        written.add(_exported(tmp_path / "model.onnx"))
        assert vars(_registration.ONNXRegistry)["from_torchlib"] is replaced
    assert listed == [19]

    monkeypatch.setattr("layers.export.onnx_export.operators_listed_once", nullcontext)
    written.add(_exported(tmp_path / "model.onnx"))
    assert listed == [19, 19]
    assert len(written) == 1
