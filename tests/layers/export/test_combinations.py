"""Every layer with every enumerated value, exported and run by ONNX Runtime, held against PyTorch in float32.

The table of all combinations with their errors is written to `artifacts/onnxruntime-float32.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.model import DECLARATIONS
from layers.export.onnx_export import export
from layers.parameter import ParameterError
from layers.signature import TensorSpec
from tests.layers.combinations import FACTS, NOT_WALKED, Combination, combinations, drawn, enumerated, lively, refusals

ARTIFACTS = Path(__file__).parents[3] / "artifacts"

LARGEST_ERROR = 1e-5

GROUPED = ("mlp", "linear", "norm", "embedding")
"""Kinds without inputs of their own: many in one graph take a fraction of the time."""

NOT_BUILT = {
    "attention.attention_mask_type": ("bidirectionalglm", "blocksparse"),
    "attention.position_embedding_type": ("long_rope", "chatglm", "yarn", "mrope"),
    "mlp.hidden_act": ("mish",),
    "norm.kind": ("BatchNorm",),
    "linear.kind": ("Conv1d",),
}
"""Names of TensorRT-LLM that Layersweep knows of and does not build."""


class Several(nn.Module):
    """Modules side by side over the same inputs, each with an output of its own."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.several = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(module(*inputs) for module in self.several)


def parity_errors(group: Sequence[Combination], folder: Path) -> dict[str, float]:
    """Id -> norm(engine - PyTorch) / norm(PyTorch), all of them exported in one graph."""
    specs = group[0].signature().inputs
    module = Several([lively(each.completed()) for each in group])
    inputs = tuple(drawn(spec) for spec in specs)
    path = folder / "several.onnx"
    names = [f"output_{index}" for index in range(len(group))]
    export(module, inputs, path, opset=17, input_names=[spec.name for spec in specs], output_names=names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fed = {spec.name: value.numpy() for spec, value in zip(specs, inputs, strict=True)}
    with torch.no_grad():
        expected = [output.numpy() for output in module(*inputs)]
    outputs = session.run(names, fed)
    return {
        each.id: float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs))
        for each, ours, theirs in zip(group, outputs, expected, strict=True)
    }


def groups(walked: Sequence[Combination]) -> list[list[Combination]]:
    """Combinations with the same inputs side by side; nothing is left out."""
    found: dict[tuple[TensorSpec, ...], list[Combination]] = {}
    for each in walked:
        found.setdefault(each.signature().inputs, []).append(each)
    return list(found.values())


def write_table(name: str, errors: dict[str, float], refused: Sequence[tuple[Combination, str]]) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    with (ARTIFACTS / name).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["combination", "parity_error", "refused"])
        table.writerows([name, f"{error:.3g}", ""] for name, error in errors.items())
        table.writerows([combination.id, "", reason] for combination, reason in refused)


def test_every_layer_alone_is_the_same_function_in_onnx_runtime(tmp_path):
    walked = [each for each in combinations() if each.values["kind"] in GROUPED]
    errors = {name: error for group in groups(walked) for name, error in parity_errors(group, tmp_path).items()}
    assert set(errors) == {each.id for each in walked}
    assert {name: error for name, error in errors.items() if not error <= LARGEST_ERROR} == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_combination_is_the_same_function_in_onnx_runtime(tmp_path):
    """Each in a graph of its own, as a trial exports it."""
    walked = combinations()
    errors: dict[str, float] = {}
    for each in walked:
        errors |= parity_errors([each], tmp_path)
    write_table("onnxruntime-float32.csv", errors, refusals())
    assert {name: error for name, error in errors.items() if not error <= LARGEST_ERROR} == {}


def test_every_enumerated_value_is_walked():
    walked = [each.completed() for each in combinations()]
    for path, parameter in DECLARATIONS.items():
        if (path in NOT_WALKED and path != "kind") or path.endswith(".dtype"):
            continue  # formats of layers are in `mixtures`, which no CPU runs
        for value in enumerated(parameter):
            assert any(model.get(path) == value for model in walked), f"{path}={value}"


def test_every_kind_of_model_is_walked():
    assert {each.values["kind"] for each in combinations()} == set(KINDS)


def test_what_is_not_built_is_refused_with_a_reason():
    reasons = {each.id: reason for each, reason in refusals()}
    assert reasons
    assert all(len(reason) > 20 for reason in reasons.values())


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in NOT_BUILT.items() for value in values])
def test_a_name_that_is_not_built_is_refused_with_those_that_are(path, value):
    with pytest.raises(ParameterError) as refused:
        complete("causal_lm", {"num_layers": 1, "hidden_size": 32, path: value}, FACTS["causal_lm"])
    assert repr(value) in str(refused.value)
    assert all(choice in str(refused.value) for choice in DECLARATIONS[path].choices)
