"""ONNX operator sets: check that a graph's operators have the form of its opset, and lower a graph by rewriting them.

A parser may ignore what it does not know without a word: TensorRT 8.6 (opset 17) skips ReduceMean's axes if they are
an input, as they are since opset 18, and reduces over every axis. So no graph leaves without this check.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from layers.export.weights import without_weights

AXES_AS_INPUT_SINCE = {
    "ReduceSum": 13,
    "ReduceL1": 18,
    "ReduceL2": 18,
    "ReduceLogSum": 18,
    "ReduceLogSumExp": 18,
    "ReduceMax": 18,
    "ReduceMean": 18,
    "ReduceMin": 18,
    "ReduceProd": 18,
    "ReduceSumSquare": 18,
}
"""Reductions -> the opset from which their axes are an input; below it they are an attribute."""

LOWEST_OPSET = 17


class OpsetError(ValueError):
    """A graph, or an operator of it, that is not valid in the opset asked for."""


def check_opset(model: onnx.ModelProto, opset: int) -> None:
    """Raise OpsetError unless every operator of `model` is valid, as it stands, in the default domain's `opset`."""
    for imported in model.opset_import:
        if imported.domain not in ("", "ai.onnx"):
            raise OpsetError(f"the graph needs the operator domain {imported.domain}")
        if imported.version != opset:
            raise OpsetError(f"the graph is in opset {imported.version}, not {opset}")
    for node in model.graph.node:
        _check_node(node, opset)
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise OpsetError(f"the graph is not valid in opset {opset}: {error}") from error


def _check_node(node: onnx.NodeProto, opset: int) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError as error:
        raise OpsetError(f"{node.op_type} is not an operator of opset {opset}") from error
    attributes = {attribute.name for attribute in node.attribute}
    if unknown := attributes - set(schema.attributes):
        raise OpsetError(f"{node.op_type} has no attribute {sorted(unknown)[0]} in opset {opset}")
    if node.op_type in AXES_AS_INPUT_SINCE and opset < AXES_AS_INPUT_SINCE[node.op_type] and len(node.input) > 1:
        raise OpsetError(f"the axes of {node.op_type} are an attribute in opset {opset}, not an input")
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise OpsetError(f"{node.op_type} takes {schema.min_input} to {schema.max_input} inputs in opset {opset}")


def lower(model: onnx.ModelProto, opset: int) -> None:
    """Rewrite `model`, of opset 18, to 17 in place, as far as the operators that Layersweep's models use need it.

    Raises OpsetError for other opsets. What it does not know how to rewrite is found by `check_opset`.
    """
    versions = [imported.version for imported in model.opset_import]
    if versions != [18] or opset != 17:
        raise OpsetError(f"cannot lower opset {versions} to {opset}")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if opset < AXES_AS_INPUT_SINCE.get(node.op_type, 0):
            _axes_to_attribute(node, constants)
        elif node.op_type == "Split":
            _without_attribute(node, "num_outputs")
    model.opset_import[0].version = opset
    _drop_unused(model.graph)


def _axes_to_attribute(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    keeps_all = any(attribute.name == "noop_with_empty_axes" and attribute.i for attribute in node.attribute)
    _without_attribute(node, "noop_with_empty_axes")
    if len(node.input) < 2 or not node.input[1]:
        if keeps_all:
            raise OpsetError(f"{node.op_type} without axes reduces nothing here, and everything in opset 17")
        return
    if node.input[1] not in constants:
        raise OpsetError(f"the axes of {node.op_type} are computed: opset 17 needs them constant")
    axes = numpy_helper.to_array(constants[node.input[1]])
    del node.input[1]
    node.attribute.append(onnx.helper.make_attribute("axes", [int(axis) for axis in axes.reshape(-1)]))


def _without_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that nothing reads."""
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    # Deleted one by one: to fill the list again would copy every tensor, which fails above two gigabytes.
    for index in reversed(range(len(graph.node))):
        if graph.node[index].op_type == "Constant" and graph.node[index].output[0] not in read:
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]
