"""8-bit products of an exported graph: which are rounded, in which ranges, and who refuses them with which words."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from layers.capabilities import unsupported
from layers.completion import complete
from layers.declarations.model import broken_rules
from layers.export.onnx_export import cast_copy, export
from layers.export.opset import OpsetError
from layers.export.quantization import quantize
from layers.modules.model import build
from tests.layers.combinations import FACTS
from workers.engine import onnx_file
from workers.training.reference import graph_outputs
from workers.trial.parity import compare

MODEL: dict[str, Any] = {"num_layers": 2, "hidden_size": 32, "attention.num_attention_heads": 4}
PRODUCTS = 2 * 4
"""Of each layer: queries, keys and values; what attention gives; into and out of the feed-forward."""

CALIBRATION = {"tokens": np.random.default_rng(0).integers(0, 29, (4, 2, 12)).astype(np.int32)}


def made(dtype: str = "float32") -> torch.nn.Module:
    """The same weights in every format."""
    torch.manual_seed(0)
    return build(complete("causal_lm", {**MODEL, "dtype": dtype}, FACTS["causal_lm"])).eval()


@functools.cache
def graph_of(opset: int, dtype: str) -> bytes:
    inputs = (torch.from_numpy(CALIBRATION["tokens"][0]),)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(cast_copy(made(dtype), dtype), inputs, path, opset=opset, input_names=["tokens"])
        return path.read_bytes()


def exported(path: Path, *, opset: int = 20, dtype: str = "float32") -> Path:
    """The float graph, at a path that a test may write."""
    path.write_bytes(graph_of(opset, dtype))
    return path


def error(path: Path) -> float:
    """Of the quantized graph against the float module, on inputs that were not calibrated on."""
    inputs = {"tokens": np.random.default_rng(1).integers(0, 29, (2, 12)).astype(np.int32)}
    with torch.no_grad():
        expected = made()(torch.from_numpy(inputs["tokens"])).numpy()
    return compare(graph_outputs(path, inputs, ["tokens"]), expected).error


def types(path: Path) -> dict[str, int]:
    """Element types of constants by name."""
    return {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("scheme", "kept_as", "largest_error"), [("int8", TensorProto.INT8, 0.03), ("fp8", TensorProto.FLOAT8E4M3FN, 0.08)]
)
def test_products_with_weights_are_rounded_and_the_rest_is_not(
    tmp_path: Path, dtype: str, scheme: str, kept_as: int, largest_error: float
) -> None:
    path = exported(tmp_path / "model.onnx", dtype=dtype)
    before = path.stat().st_size
    assert quantize(path, scheme, CALIBRATION) == PRODUCTS
    assert 1e-4 < error(path) < largest_error
    assert path.stat().st_size < before
    graph, kept = onnx.load(path).graph, types(path)
    made_by = {name: node for node in graph.node for name in node.output}
    rounded = [
        [made_by[name].op_type if name in made_by else "" for name in node.input]
        for node in graph.node
        if node.op_type == "MatMul"
    ]
    assert rounded.count(["DequantizeLinear", "DequantizeLinear"]) == PRODUCTS
    # Two products of attention in each layer, and the head.
    assert len(rounded) == PRODUCTS + 2 * 2 + 1
    weights = [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in kept]
    assert {kept[name] for name in weights} == {kept_as}
    assert len(weights) == PRODUCTS


def test_weights_have_a_range_for_each_column_and_fp8_one_for_all(tmp_path: Path) -> None:
    sizes: dict[str, set[int]] = {}
    for scheme in ("int8", "fp8"):
        path = exported(tmp_path / "model.onnx")
        quantize(path, scheme, CALIBRATION)
        graph = onnx.load(path).graph
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        nodes = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
        sizes[scheme] = {tensors[node.input[1]].size for node in nodes}
    assert sizes == {"int8": {32, 96, 128}, "fp8": {1}}


def test_ranges_are_those_of_the_calibration(tmp_path: Path) -> None:
    found: list[bytes] = []
    for count in (1, 4, 4):
        path = exported(tmp_path / "model.onnx")
        quantize(path, "int8", {"tokens": CALIBRATION["tokens"][:count]})
        found.append(path.read_bytes())
    assert found[0] != found[1]
    assert found[1] == found[2]


def test_an_older_opset_keeps_float32_weights_and_takes_no_others(tmp_path: Path) -> None:
    path = exported(tmp_path / "model.onnx", opset=17)
    assert quantize(path, "int8", CALIBRATION) == PRODUCTS
    assert error(path) < 0.03
    graph, kept = onnx.load(path).graph, types(path)
    weights = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in kept]
    assert [kept[name] for name in weights] == [TensorProto.FLOAT] * PRODUCTS
    newer = exported(tmp_path / "newer.onnx")
    quantize(newer, "int8", CALIBRATION)
    # An engine holds them in 8 bits either way.
    assert onnx_file.weights(path).nbytes == pytest.approx(onnx_file.weights(newer).nbytes, rel=0.02)
    for scheme, dtype in (("fp8", "float32"), ("int8", "float16")):
        path = exported(tmp_path / "model.onnx", opset=17, dtype=dtype)
        with pytest.raises(OpsetError, match="needs 19"):
            quantize(path, scheme, CALIBRATION)


ABLE: dict[str, Any] = {
    "runtime": "tensorrt",
    "version": "8.6.0",
    "device_model": "a GPU",
    "opset": 17,
    "dtypes": ["float32", "float16", "bfloat16"],
    "quantizations": ["int8"],
    "lacks": {"quantization fp8": "needs tensorrt 10.0", "quantization of float16": "needs opset 19"},
    "devices": 1,
    "device_memory_bytes": 2**30,
}


def test_a_target_says_which_quantization_it_lacks() -> None:
    def model(**changes: str) -> dict[str, Any]:
        return complete("causal_lm", {**MODEL, **changes}, FACTS["causal_lm"])

    assert unsupported(model(), {**ABLE, "quantizations": []}) is None
    assert unsupported(model(quantization="int8"), ABLE) is None
    lacking = unsupported(model(quantization="fp8"), ABLE)
    assert lacking == "tensorrt 8.6.0 on a GPU does not run quantization fp8: needs tensorrt 10.0"
    lacking = unsupported(model(quantization="int8", dtype="float16"), ABLE)
    assert lacking is not None
    assert lacking.endswith("does not run quantization int8 with dtype float16: needs opset 19")
    (broken,) = broken_rules(model(quantization="int8", dtype="bfloat16"))
    assert broken.paths == ("quantization", "dtype")
