"""The check of operators' forms, and the rewriting of opset 18 to 17."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from layers.export.opset import AXES_AS_INPUT_SINCE, OpsetError, check_opset, lower


def graph_of(*nodes, opset, initializers=(), shape=(2, 3, 4)):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c"])]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def axes_of(*values):
    return helper.make_tensor("axes", TensorProto.INT64, [len(values)], values)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("operator", sorted(set(AXES_AS_INPUT_SINCE) - {"ReduceSum"}))
def test_axes_as_an_input_are_found_below_opset_18(operator):
    model = graph_of(helper.make_node(operator, ["x", "axes"], ["y"]), opset=17, initializers=[axes_of(2)])
    with pytest.raises(OpsetError, match=f"axes of {operator} are an attribute in opset 17"):
        check_opset(model, 17)
    model.opset_import[0].version = 18
    check_opset(model, 18)


@pytest.mark.parametrize("operator", sorted(set(AXES_AS_INPUT_SINCE) - {"ReduceSum"}))
def test_axes_as_an_attribute_are_found_from_opset_18_on(operator):
    model = graph_of(helper.make_node(operator, ["x"], ["y"], axes=[2]), opset=18)
    with pytest.raises(OpsetError, match=f"{operator} has no attribute axes in opset 18"):
        check_opset(model, 18)
    model.opset_import[0].version = 17
    check_opset(model, 17)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Gelu", ["x"], ["y"]), "Gelu is not an operator of opset 17"),
        (helper.make_node("Split", ["x"], ["y"], num_outputs=1), "Split has no attribute num_outputs"),
        (helper.make_node("Exp", ["x", "x"], ["y"]), "Exp takes 1 to 1 inputs"),
    ],
)
def test_operators_of_later_opsets_are_found(node, words):
    with pytest.raises(OpsetError, match=words):
        check_opset(graph_of(node, opset=17), 17)


def test_another_opset_or_domain_is_found():
    model = graph_of(helper.make_node("Exp", ["x"], ["y"]), opset=18)
    with pytest.raises(OpsetError, match="in opset 18, not 17"):
        check_opset(model, 17)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(OpsetError, match=r"com\.example"):
        check_opset(model, 18)


def test_inconsistent_shapes_are_found():
    model = graph_of(helper.make_node("MatMul", ["x", "x"], ["y"]), opset=18)
    with pytest.raises(OpsetError, match="not valid in opset 18"):
        check_opset(model, 18)


@pytest.mark.parametrize("as_node", [True, False])
def test_lowered_reductions_reduce_the_same_axes(as_node):
    reduce = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1, noop_with_empty_axes=0)
    constant = helper.make_node("Constant", [], ["axes"], value=axes_of(-1))
    model = graph_of(constant, reduce, opset=18) if as_node else graph_of(reduce, opset=18, initializers=[axes_of(-1)])
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    before = run(model, x)
    lower(model, 17)
    check_opset(model, 17)
    assert [node.op_type for node in model.graph.node] == ["ReduceMean"]
    assert not model.graph.initializer
    np.testing.assert_array_equal(run(model, x), before)
    np.testing.assert_allclose(before, x.mean(-1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_lowered_splits_split_the_same():
    split = helper.make_node("Split", ["x"], ["y", "z"], axis=2, num_outputs=2)
    model = graph_of(split, opset=18)
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    before = run(model, x)
    lower(model, 17)
    check_opset(model, 17)
    np.testing.assert_array_equal(run(model, x), before)


def test_what_cannot_be_lowered_is_refused():
    computed = graph_of(
        helper.make_node("Shape", ["x"], ["axes"]), helper.make_node("ReduceMax", ["x", "axes"], ["y"]), opset=18
    )
    with pytest.raises(OpsetError, match="axes of ReduceMax are computed"):
        lower(computed, 17)
    noop = graph_of(helper.make_node("ReduceMax", ["x"], ["y"], noop_with_empty_axes=1), opset=18)
    with pytest.raises(OpsetError, match="reduces nothing here"):
        lower(noop, 17)
    with pytest.raises(OpsetError, match=r"cannot lower opset \[20\] to 17"):
        lower(graph_of(helper.make_node("Exp", ["x"], ["y"]), opset=20), 17)


def test_the_trap_is_real():
    """The same graph below opset 18 with its axes ignored would be another function: the reason for all of this."""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    by_axis = run(graph_of(helper.make_node("ReduceMean", ["x"], ["y"], axes=[2]), opset=17), x)
    everything = run(graph_of(helper.make_node("ReduceMean", ["x"], ["y"]), opset=17), x)
    assert by_axis.shape != everything.shape
    assert onnx.defs.get_schema("ReduceMean", 17, "").max_input == 1
