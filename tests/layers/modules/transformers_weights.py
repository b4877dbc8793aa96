"""Weights of models of the `transformers` package in ours, and whether both then give the same logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from layers.completion import complete
from layers.declarations.model import broken_rules, parameter_count
from layers.export.onnx_export import export
from layers.modules.model import build

TOLERANCE = 1e-5
VOCABULARY = 53
B, T, S = 3, 17, 13

Weights = dict[str, Tensor]


def randomized(model: nn.Module) -> nn.Module:
    """With weights so large that attention is far from uniform, and biases and scales that are not at their start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.15 * spread if parameter.dim() > 1 else parameter + 0.1 * spread)
    return model.eval()


def filled(task: str, values: Mapping[str, Any], facts: Mapping[str, Any], weights: Weights) -> nn.Module:
    """Our module with these weights: every one of its own, and no others."""
    model = complete(task, values, facts)
    assert broken_rules(model) == []
    module = build(model).eval()
    module.load_state_dict(weights, strict=True)
    assert parameter_count(model) == sum(parameter.numel() for parameter in module.parameters())
    return module


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    error = (ours - theirs).norm() / theirs.norm()
    assert error <= TOLERANCE, error
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=TOLERANCE * theirs.abs().max().item())


def assert_same_in_onnx(module: nn.Module, inputs: Mapping[str, Tensor], theirs: Tensor, folder: Path) -> None:
    """The same of the exported module, run by ONNX Runtime."""
    path = folder / "model.onnx"
    export(module, tuple(inputs.values()), path, opset=17, input_names=list(inputs))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
    assert_same(torch.from_numpy(logits), theirs)


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], *, suffixes: tuple[str, ...] = ("weight",)
) -> Weights:
    return {f"{ours}.{suffix}": state[f"{theirs}.{suffix}"] for ours, theirs in names.items() for suffix in suffixes}


def joined(state: Mapping[str, Tensor], *names: str) -> Tensor:
    return torch.cat([state[name] for name in names])
