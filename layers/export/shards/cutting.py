"""A graph whose collectives are cut open, as segments: what is computed between one collective and the next.

Numbers that a later segment needs cross as tensors; what only says which tokens are seen (integers, truth values) is
computed again in each segment, since not every runtime has such tensors as inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

from layers.export.weights import without_weights

_CROSSING = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass
class _Segment:
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    inputs: dict[str, None] = field(default_factory=dict[str, None])
    outputs: dict[str, None] = field(default_factory=dict[str, None])


class Cut:
    """Segments of one graph, for its outputs one after another. A segment without nodes is None."""

    def __init__(self, model: ModelProto, outputs: Sequence[str]) -> None:
        """`outputs`: of the graph, each of which ends a segment, in their order."""
        self._model = model
        self._values = _value_infos(model)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._given = {each.name for each in model.graph.input}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._order = {id(node): position for position, node in enumerate(model.graph.node)}
        self._home: dict[str, _Segment] = {}
        """The segment that a value is computed in first."""
        self._segments = [self._segment(name) for name in outputs]

    def nbytes(self, name: str) -> int:
        """Of a tensor of the graph, in bytes."""
        tensor = self._values[name].type.tensor_type
        size = math.prod(axis.dim_value for axis in tensor.shape.dim)
        return size * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize

    def crossing(self) -> set[str]:
        """The tensors that a segment takes or gives."""
        return {name for segment in self._segments for name in (*segment.inputs, *segment.outputs)}

    def models(self) -> Iterator[ModelProto | None]:
        """Each segment as a model of its own."""
        for segment in self._segments:
            yield self._model_of(segment) if segment.nodes else None

    def _segment(self, output: str) -> _Segment:
        segment = _Segment()
        chosen: dict[int, NodeProto] = {}
        wanted = [output]
        while wanted:
            name = wanted.pop()
            if not name or name in self._constants:
                continue
            home = self._home.get(name)
            if home is segment:
                continue
            if name in self._given:
                segment.inputs[name] = None
                continue
            if home is not None and self._crosses(name):
                segment.inputs[name] = home.outputs[name] = None
                continue
            node = self._producers[name]
            if id(node) not in chosen:
                chosen[id(node)] = node
                wanted += [*node.input, *_captured(node)]
        segment.nodes = sorted(chosen.values(), key=lambda node: self._order[id(node)])
        for node in segment.nodes:
            for name in node.output:
                self._home.setdefault(name, segment)
        home = self._home.get(output)
        if home is not None:
            home.outputs[output] = None
        return segment

    def _crosses(self, name: str) -> bool:
        info = self._values.get(name)
        return info is not None and info.type.tensor_type.elem_type in _CROSSING

    def _model_of(self, segment: _Segment) -> ModelProto:
        used = {name for node in segment.nodes for name in (*node.input, *_captured(node))}
        graph = helper.make_graph(
            segment.nodes,
            "segment",
            [self._values[name] for name in segment.inputs],
            [self._values[name] for name in segment.outputs],
            [self._constants[name] for name in self._constants if name in used],
        )
        return helper.make_model(graph, opset_imports=list(self._model.opset_import), ir_version=self._model.ir_version)


def _captured(node: NodeProto) -> Iterator[str]:
    """What the graphs inside a node read of the graph around it."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = {name for each in attribute.g.node for name in each.output}
            for each in attribute.g.node:
                yield from (name for name in each.input if name not in inner)


def _value_infos(model: ModelProto) -> Mapping[str, ValueInfoProto]:
    """Type and shape of every value."""
    inferred = shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    return {each.name: each for each in (*inferred.value_info, *inferred.input, *inferred.output)}
