"""Number formats of single kinds of layers: what runs in which, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from layers.capabilities import unsupported
from layers.completion import complete
from layers.declarations.dtypes import MIXED, by_parameter
from layers.declarations.kinds import KINDS
from layers.declarations.model import broken_rules, parameter_count, weights_bytes
from layers.export.onnx_export import cast_copy, export
from layers.modules.model import torch_dtype
from layers.parameter import Scalar
from layers.signature import signature
from tests.layers.combinations import BASES, FACTS, drawn, lively

ABLE: dict[str, Any] = {
    "runtime": "tensorrt",
    "version": "10.13",
    "device_model": "a GPU",
    "opset": 20,
    "dtypes": ["float32", "tf32", "float16", "bfloat16"],
    "device_memory_bytes": 10**9,
}
CASES: list[tuple[str, dict[str, Scalar]]] = [
    ("decoder", {"attention.dtype": "float16"}),
    ("decoder", {"mlp.dtype": "bfloat16", "mlp.kind": "FusedGatedMLP"}),
    ("decoder", {"embedding.dtype": "float16", "embedding.embedding_dim": 16}),
    ("decoder", {"norm.dtype": "bfloat16"}),
    ("decoder", {"dtype": "float16", "attention.dtype": "float32", "attention.position_embedding_type": "relative"}),
    ("decoder", {"layers.1.mlp.dtype": "float16", "num_layers": 2, "attention.qk_layernorm": True}),
    ("encoder", {"attention.dtype": "float16", "attention.attention_mask_type": "custom_mask"}),
    ("encoder", {"attention.dtype": "bfloat16", "attention.attention_mask_type": "padding"}),
    ("encoder_decoder", {"attention.dtype": "float16", "embedding.dtype": "bfloat16"}),
    ("block", {"dtype": "bfloat16", "mlp.dtype": "float32", "norm.kind": "RmsNorm"}),
    (
        "attention",
        {"attention.dtype": "float16", "attention.cross_attention": True, "attention.attention_mask_type": "padding"},
    ),
    ("mlp", {"mlp.dtype": "float16"}),
    ("linear", {"linear.dtype": "float16"}),
    ("norm", {"norm.dtype": "float16", "norm.kind": "GroupNorm", "norm.num_groups": 4}),
    ("embedding", {"embedding.dtype": "float16"}),
]


def completed(kind: str, changes: dict[str, Scalar]) -> dict[str, Scalar]:
    task = KINDS[kind].task
    return complete(task, {**BASES[kind], "kind": kind, **changes}, FACTS[task])


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=[f"{kind}-{index}" for index, (kind, _) in enumerate(CASES)])
def test_a_mixed_model_is_the_same_function_but_for_rounding(kind: str, changes: dict[str, Scalar]) -> None:
    model = completed(kind, changes)
    assert broken_rules(model) == []
    whole = lively(model)
    found = signature(KINDS[kind].task, model, 2, 12, 9)
    inputs = tuple(drawn(spec) for spec in found.inputs)
    with torch.no_grad():
        expected, mixed = whole(*inputs), cast_copy(whole, str(model["dtype"]))(*inputs)
    assert str(mixed.dtype) == f"torch.{found.outputs[0].dtype}", "what leaves a model is in its dtype"
    error = float((mixed.float() - expected).norm() / expected.norm())
    assert 0 < error < (5e-2 if "bfloat16" in by_parameter(model).values() else 5e-3)
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}, "the module itself is left alone"


def test_each_kind_of_layer_has_its_weights_in_its_format() -> None:
    changes: dict[str, Scalar] = {"attention.dtype": "float16", "mlp.dtype": "bfloat16", "embedding.dtype": "float16"}
    model = completed("decoder", {**changes, "tie_embeddings": False})
    module = cast_copy(lively(model), "float32")
    found = {name: parameter.dtype for name, parameter in module.named_parameters()}
    for name, dtype in found.items():
        section = next((each for each in ("attention", "mlp", "embedding") if f"{each}." in name), "")
        ours = {"position_embedding": torch.float32}.get(
            name.split(".")[1], torch_dtype(str(model[f"{section}.dtype".strip(".")]))
        )
        assert dtype == ours, name
    taken = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    assert weights_bytes(model) == taken
    assert parameter_count(model) == sum(parameter.numel() for parameter in module.parameters())


def test_the_graph_computes_in_the_formats_that_the_trial_names(tmp_path) -> None:
    model = completed("decoder", {"attention.dtype": "float16"})
    module, path = cast_copy(lively(model), "float32"), tmp_path / "model.onnx"
    (tokens,) = (drawn(spec) for spec in signature("causal_lm", model, 2, 12).inputs)
    export(module, (tokens,), path, opset=17, input_names=("tokens",))
    graph = onnx.load(path).graph
    weights = {tuple(sorted(each.dims)): each.data_type for each in graph.initializer if len(each.dims) == 2}
    assert weights[32, 96] == TensorProto.FLOAT16, "queries, keys and values"
    assert weights[32, 128] == TensorProto.FLOAT, "feed-forward"
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert np.isfinite(module(tokens).detach().numpy()).all()


def test_a_completed_model_says_what_runs_in_which() -> None:
    model = completed("decoder", {"dtype": "float16", "mlp.dtype": "float32"})
    shown = {name: value for name, value in model.items() if name.endswith("dtype")}
    assert shown == {
        "dtype": "float16",
        "attention.dtype": "float16",
        "mlp.dtype": "float32",
        "norm.dtype": "float32",
        "embedding.dtype": "float16",
    }
    layered = completed("decoder", {"num_layers": 2, "layers.1.attention.dtype": "bfloat16"})
    assert [layered[f"layers.{index}.attention.dtype"] for index in range(2)] == ["float32", "bfloat16"]


def test_a_target_says_which_format_it_lacks() -> None:
    mixed = completed("decoder", {"attention.dtype": "bfloat16"})
    assert unsupported(mixed, ABLE) is None
    cpu = {**ABLE, "runtime": "onnxruntime", "dtypes": ["float32"], "lacks": {"dtype bfloat16": "no attention in it"}}
    assert (unsupported(mixed, cpu) or "").endswith(
        "does not run attention.dtype bfloat16 (it runs float32): no attention in it"
    )
    assert "norm.dtype float16" in (unsupported(completed("norm", {"norm.dtype": "float16"}), cpu) or "")
    old = {**ABLE, "version": "8.6", "lacks": {MIXED: "needs tensorrt 10"}}
    assert (unsupported(mixed, old) or "").endswith(
        "does not run attention.dtype bfloat16 in an engine of dtype float32: needs tensorrt 10"
    )
    assert unsupported(completed("decoder", {"dtype": "float16"}), old) is None, "norms in float32 are no mixture"


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "tf32", "mlp.dtype": "float32"}, {"mlp.dtype": "tf32"}, {"dtype": "float16", "mlp.dtype": "tf32"}],
)
def test_tf32_is_of_all_products_or_of_none(changes: dict[str, Scalar]) -> None:
    assert "tf32 of all products" in [violation.rule for violation in broken_rules(completed("mlp", changes))]
    assert broken_rules(completed("mlp", {"dtype": "tf32", "mlp.dtype": "float16"})) == []
