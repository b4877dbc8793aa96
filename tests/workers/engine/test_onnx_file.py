"""The small reader and writer of ONNX files, against the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.workers import graphs
from workers.engine import onnx_file


def save(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> Path:
    graph = helper.make_graph(nodes, "graph", [], [], initializers)
    onnx.save(helper.make_model(graph), path)
    return path


def test_weights_of_a_model(tmp_path: Path) -> None:
    model = graphs.LanguageModel.make(width=64)
    found = onnx_file.weights(model.save(tmp_path / "model.onnx"))
    assert found == onnx_file.Weights(model.weights_bytes, external=False)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_each_type_and_shape(dtype: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.ones(shape, dtype)
    path = save(tmp_path / "model.onnx", [], [numpy_helper.from_array(array, "array")])
    assert onnx_file.weights(path).nbytes == array.nbytes


def test_values_that_are_not_raw_count_by_their_type(tmp_path: Path) -> None:
    tensors = [
        helper.make_tensor("floats", TensorProto.FLOAT, [2, 3], [1.0] * 6),
        helper.make_tensor("halves", TensorProto.FLOAT16, [4], [1.0] * 4),
        helper.make_tensor("nibbles", TensorProto.INT4, [3], [1, 2, 3]),
    ]
    assert onnx_file.weights(save(tmp_path / "model.onnx", [], tensors)).nbytes == 24 + 8 + 2


def test_constants_and_subgraphs_count(tmp_path: Path) -> None:
    inner = helper.make_graph([], "inner", [], [], [numpy_helper.from_array(np.ones(10, np.float32), "inner")])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(3, np.int64))),
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    assert onnx_file.weights(save(tmp_path / "model.onnx", nodes, [])).nbytes == 24 + 40 + 40


def test_weights_in_another_file_are_noticed(tmp_path: Path) -> None:
    model = graphs.LanguageModel.make()
    path = tmp_path / "model.onnx"
    onnx.save(model.model(), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert onnx_file.weights(path) == onnx_file.Weights(model.weights_bytes, external=True)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    whole = graphs.LanguageModel.make().model().SerializeToString()
    for content in (b"", whole[:100], b"\xff" * 40, b"plain text, no model"):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(onnx_file.OnnxFileError):
            onnx_file.weights(tmp_path / "broken")


def test_a_written_model_is_a_model() -> None:
    model = onnx.load_from_string(onnx_file.chain_model(("Erf", "Softmax", "Identity"), (3, 200), opset=17))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Erf", "Softmax", "Identity"]
    assert model.opset_import[0].version == 17
    assert [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim] == [3, 200]
