"""The weights of a graph: what they take, and the graph without them."""

from __future__ import annotations

import math

from onnx import ModelProto, TensorProto, helper

MOST_KEPT_ELEMENTS = 1024
"""Of a constant that a graph without weights keeps: shapes and axes are smaller, weights are larger."""


def weights_bytes(model: ModelProto) -> int:
    """What the graph's initializers take. A model of two gigabytes or more cannot say its own size."""
    return sum(_nbytes(tensor) for tensor in model.graph.initializer)


def without_weights(model: ModelProto) -> ModelProto:
    """The same graph with its large initializers as inputs.

    For what serializes a graph to check it or to infer shapes: a protobuf ends at two gigabytes, and types and shapes
    do not depend on weights.
    """
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MOST_KEPT_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def _nbytes(tensor: TensorProto) -> int:
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
