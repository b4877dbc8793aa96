"""Graphs: the same function as the module, valid in their opset, and without a trace of this machine."""

from __future__ import annotations

import tempfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from layers.export.onnx_export import HIGHEST_OPSET, OpsetError, cast_copy, export, external_data, graph_opset, warm_up
from layers.modules.model import build


def run(path, **inputs) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def tokens_of(batch_size=2, length=12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 29, (batch_size, length), generator=generator, dtype=torch.int32)


def lively(model) -> nn.Module:
    """The module with weights large enough that attention and every activation matter."""
    torch.manual_seed(0)
    module = build(model).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.15).add_(1.0 if parameter.dim() == 1 else 0.0)
    return module


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected))


SPREAD = [
    (17, {}),
    (
        17,
        {
            "norm.kind": "RmsNorm",
            "attention.num_kv_heads": 2,
            "attention.position_embedding_type": "rope_gpt_neox",
            "mlp.kind": "FusedGatedMLP",
        },
    ),
    (
        17,
        {
            "norm.kind": "GroupNorm",
            "norm.num_groups": 4,
            "attention.position_embedding_type": "rope_gptj",
            "mlp.hidden_act": "squared-relu",
        },
    ),
    (
        17,
        {
            "norm.kind": "RmsNorm",
            "norm.num_groups": 4,
            "attention.qk_layernorm": True,
            "mlp.hidden_act": "swiglu",
            "tie_embeddings": False,
        },
    ),
    (18, {"norm.kind": "RmsNorm", "norm_position": "post", "mlp.kind": "GatedMLP", "mlp.hidden_act": "quick_gelu"}),
    (
        18,
        {
            "embedding.embedding_dim": 16,
            "mlp.hidden_act": "gelu_new",
            "attention.q_scaling": 0.5,
            "attention.bias": False,
            "mlp.bias": False,
            "norm.bias": False,
        },
    ),
    (19, {"norm.elementwise_affine": False, "mlp.hidden_act": "softplus", "attention.num_kv_heads": 1}),
    (
        20,
        {
            "attention.position_embedding_type": "rope_gpt_neox",
            "attention.rotary_embedding_percentage": 0.5,
            "mlp.hidden_act": "gelu_pytorch_tanh",
        },
    ),
    (23, {"attention.num_attention_heads": 3, "attention.attention_head_size": 10, "mlp.hidden_act": "geglu"}),
]


@pytest.mark.parametrize(("opset", "changes"), SPREAD)
def test_the_engine_of_a_graph_gives_the_modules_logits(completed, tmp_path, opset, changes):
    module, tokens = lively(completed(changes)), tokens_of()
    path = tmp_path / "model.onnx"
    export(module, (tokens,), path, opset=opset, input_names=("tokens",))
    with torch.no_grad():
        expected = module(tokens).numpy()
    assert relative_error(run(path, tokens=tokens.numpy()), expected) <= 1e-5
    graph = onnx.load(path)
    assert [(imported.domain, imported.version) for imported in graph.opset_import] == [("", min(opset, HIGHEST_OPSET))]


def test_float16_logits_are_float16_and_near(completed, tmp_path):
    module, tokens = lively(completed({"norm.kind": "RmsNorm", "dtype": "float16"})), tokens_of()
    path = tmp_path / "model.onnx"
    export(cast_copy(module, "float16"), (tokens,), path, opset=17, input_names=("tokens",))
    logits = run(path, tokens=tokens.numpy())
    assert logits.dtype == np.float16
    with torch.no_grad():
        assert relative_error(logits, module(tokens).numpy()) < 5e-3


def test_bfloat16_is_written_as_bfloat16(completed, tmp_path):
    path = tmp_path / "model.onnx"
    module = build(completed({"dtype": "bfloat16"}))
    export(cast_copy(module, "bfloat16"), (tokens_of(),), path, opset=18, input_names=("tokens",))
    graph = onnx.load(path).graph
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16
    tables = [tensor for tensor in graph.initializer if list(tensor.dims) == [29, 32]]
    assert tables
    assert {tensor.data_type for tensor in tables} == {onnx.TensorProto.BFLOAT16}


def test_the_copy_is_cast_and_the_module_left_as_it_is(completed):
    module = build(completed({"dtype": "float16"}))
    copy = cast_copy(module, "float16")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in copy.parameters()} == {torch.float16}
    assert module.training
    assert not copy.training


def test_exporting_leaves_the_module_training(completed, tmp_path):
    module = build(completed(), dropout=0.5)
    export(module, (tokens_of(),), tmp_path / "model.onnx", opset=18, input_names=("tokens",))
    assert module.training
    assert "Dropout" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_a_graph_has_static_shapes_and_names_nothing_of_this_machine(completed, tmp_path):
    path = tmp_path / "model.onnx"
    names = {"input_names": ("tokens",), "output_names": ("scores",)}
    export(build(completed()), (tokens_of(3, 10),), path, opset=18, **names)
    graph = onnx.load(path).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"tokens": [3, 10], "scores": [3, 10, 29]}
    assert b".py" not in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_is_killed_while_it_warms_up_leaves_no_folder_behind(monkeypatch):
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: pytest.fail("a folder"))
    warm_up()


def test_the_same_module_gives_the_same_bytes(completed, tmp_path):
    module = lively(completed())
    for name in ("first", "second"):
        export(module, (tokens_of(),), tmp_path / name, opset=17, input_names=("tokens",))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_large_weights_lie_beside_the_graph(completed, tmp_path, monkeypatch):
    monkeypatch.setattr("layers.export.onnx_export.ONE_FILE_BYTES", 10_000)
    module, tokens = lively(completed()), tokens_of()
    path = tmp_path / "model.onnx"
    for _ in range(2):  # over an older file as well
        export(module, (tokens,), path, opset=17, input_names=("tokens",))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    with torch.no_grad():
        assert relative_error(run(path, tokens=tokens.numpy()), module(tokens).numpy()) <= 1e-5


def test_too_old_an_opset_is_refused(completed, tmp_path):
    with pytest.raises(OpsetError, match="opset 16 is too old"):
        export(build(completed()), (tokens_of(),), tmp_path / "model.onnx", opset=16, input_names=("tokens",))
    assert [graph_opset(opset) for opset in (17, 18, 20, 26)] == [17, 18, 20, 20]


@pytest.mark.slow
def test_a_model_of_more_than_two_gigabytes_is_exported(tmp_path):
    """A protobuf ends there: of 2.1 GB no graph can be serialized whole, for a file or for the checker."""
    module = nn.Linear(16_384, 32_768, bias=False)
    with torch.no_grad():
        module.weight.zero_()
        module.weight[7, 3] = 2.0
    path = tmp_path / "large.onnx"
    export(module, (torch.zeros(1, 16_384),), path, opset=17, input_names=("x",), output_names=("y",))
    assert external_data(path).stat().st_size >= 2**31
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 16_384), np.float32)})
    assert found[0, 7] == 2.0
    assert np.count_nonzero(found) == 1
