"""A float ONNX graph -> the same with 8-bit products, by explicit quantization: the form that every runtime reads.

What is multiplied with weights is rounded by a QuantizeLinear and brought back by a DequantizeLinear, and so are the
weights: they lie in the file in 8 bits. Runtimes fuse these operators with the product.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ml_dtypes import float8_e4m3fn
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX

from layers.export.opset import OpsetError, check_opset

PRODUCTS = ("MatMul", "Gemm", "Conv")

SHORT_FLOAT_OPSET = 19
"""From this opset on QuantizeLinear takes float16, and makes float8. Of the runtimes TensorRT 8.6 alone reads an older
one, which takes float32 weights and rounds them itself when it builds: older graphs have them so."""

_INT8_HALF_RANGE, _FP8_LARGEST = 127.5, 448.0


class _Batches(CalibrationDataReader):
    """Inputs by name, [batches, ...], one batch after the other."""

    def __init__(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        count = len(next(iter(inputs.values())))
        self._left = iter([{name: array[index] for name, array in inputs.items()} for index in range(count)])

    def get_next(self) -> dict[str, NDArray[Any]]:
        """The next batch; what is not true if there is none left, as the base class has it."""
        return next(self._left, {})


def quantize(path: Path, scheme: str, calibration: Mapping[str, NDArray[Any]]) -> int:
    """Rewrite the ONNX file at `path` with its products with weights in `scheme`, int8 or fp8; return how many.

    That which makes an output named `logits` is left as it is.

    calibration: the graph's inputs by name, each [batches, ...]: the largest magnitude that a tensor has there is the
    end of its range. int8 is symmetric, for weights by output column; fp8 (E4M3) has one range for a tensor.
    Raises OpsetError if the graph's opset has no such QuantizeLinear, ValueError if it has no such product.
    """
    model = onnx.load(path)
    opset = model.opset_import[0].version
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products = _matmuls(model.graph, set(weights))
    if not products:
        raise ValueError("the graph has no product with weights: there is nothing to quantize")
    floats = all(weights[node.input[1]].data_type == TensorProto.FLOAT for node in products)
    if opset < SHORT_FLOAT_OPSET and not (scheme == "int8" and floats):
        raise OpsetError(
            f"opset {opset} has float32 to int8 alone: {scheme} of these weights needs {SHORT_FLOAT_OPSET}"
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _quiet():
        made = Path(folder) / "quantized.onnx"
        quantize_static(
            path,
            made,
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=[node.name for node in products],
            per_channel=scheme == "int8",
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "AddQDQPairToWeight": opset < SHORT_FLOAT_OPSET,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
            },
        )
        quantized = onnx.load(made)
    if scheme == "fp8":
        _to_fp8(quantized, weights)
    quantized.ir_version = helper.find_min_ir_version_for(list(quantized.opset_import))
    del quantized.metadata_props[:], quantized.graph.value_info[:]
    check_opset(quantized, opset)
    onnx.save_model(quantized, path)
    return len(products)


def _matmuls(graph: onnx.GraphProto, weights: set[str]) -> list[onnx.NodeProto]:
    """The products with weights, but for that which makes logits.

    Logits are few products that a loss feels most: NVIDIA's ModelOpt leaves them, too. And the exporter folds a tied
    table's transposition for small tables alone, so that only small models had a head to quantize.
    """
    makes = {name: node for node in graph.node for name in node.output}
    last = makes[graph.output[0].name] if graph.output[0].name == "logits" else None
    while last is not None and last.op_type not in PRODUCTS:
        before = [makes[name] for name in last.input if name in makes]
        last = before[0] if len(before) == 1 else None
    head = None if last is None else last.name
    return [n for n in graph.node if n.op_type in PRODUCTS and n.input[1] in weights and n.name != head]


def _to_fp8(model: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]) -> None:
    """The same ranges with the numbers of E4M3 in them; `weights` are those before they were quantized."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    widened: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        given, scale_name, zero_name = node.input
        scale = numpy_helper.to_array(tensors[scale_name])
        if scale_name not in widened:
            widened.add(scale_name)
            scale = (scale.astype(np.float64) * _INT8_HALF_RANGE / _FP8_LARGEST).astype(scale.dtype)
            tensors[scale_name].CopyFrom(numpy_helper.from_array(scale, scale_name))
            tensors[zero_name].CopyFrom(numpy_helper.from_array(np.zeros(scale.shape, float8_e4m3fn), zero_name))
        if given in tensors:
            original = numpy_helper.to_array(weights[given.removesuffix(TENSOR_NAME_QUANT_SUFFIX)])
            rounded = (original.astype(np.float32) / scale.astype(np.float32)).astype(float8_e4m3fn)
            tensors[given].CopyFrom(numpy_helper.from_array(rounded, given))


@contextmanager
def _quiet() -> Generator[None]:
    """Without ONNX Runtime's advice on graphs from other exporters."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
