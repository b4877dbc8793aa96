"""Just enough of the ONNX file format (protocol buffers) for what the engine child must know without the onnx package.

Field numbers are those of onnx.proto, which never change.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_MODEL_GRAPH, _MODEL_OPSET_IMPORT = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_INPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_SPARSE_TENSORS = (1, 2)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_LOCATION = 1, 2, 8, 14

_BITS = {
    **dict.fromkeys((1, 6, 12), 32),  # float, int32, uint32
    **dict.fromkeys((7, 11, 13, 14), 64),  # int64, double, uint64, complex64
    **dict.fromkeys((4, 5, 10, 16), 16),  # uint16, int16, float16, bfloat16
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),  # uint8, int8, bool, float8 kinds
    **dict.fromkeys((21, 22, 23), 4),  # uint4, int4, float4
    15: 128,  # complex128
}
"""TensorProto.DataType -> bits an element."""


class OnnxFileError(ValueError):
    """The bytes are no ONNX model."""


@dataclass(frozen=True)
class Weights:
    """All constant tensors of a model: initializers and constants, in subgraphs too; each counted once."""

    nbytes: int
    external: bool
    """true: some lie in another file"""


def weights(path: Path) -> Weights:
    """What the model's constant tensors take, by their types and shapes: those that a QuantizeLinear rounds, a byte an
    element. Raises OnnxFileError."""
    return _weights(_opened(path))


def operators(path: Path) -> set[str]:
    """The operators of the model's graph, but not of graphs in it. Raises OnnxFileError."""
    return {_operator(node) for node in _nodes(_opened(path))}


def opset(path: Path) -> int:
    """The model's opset of ONNX's own operators. Raises OnnxFileError."""
    for field, imported in _messages(_opened(path)):
        if field == _MODEL_OPSET_IMPORT:
            found = {number: value for number, _, value in _fields(imported)}
            if bytes(_view(found.get(_OPSET_DOMAIN, memoryview(b"")))) in (b"", b"ai.onnx"):
                return _integer(found.get(_OPSET_VERSION, 0))
    raise OnnxFileError(f"{path} names no opset")


def _opened(path: Path) -> memoryview:
    if path.stat().st_size == 0:
        raise OnnxFileError(f"{path} is empty")
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _nodes(model: memoryview) -> Iterator[memoryview]:
    for field, graph in _messages(model):
        if field == _MODEL_GRAPH:
            yield from (message for number, message in _messages(graph) if number == _GRAPH_NODE)


def _operator(node: memoryview) -> str:
    return next((bytes(name).decode() for field, name in _messages(node) if field == _NODE_OPERATOR), "")


def _rounded(model: memoryview) -> set[bytes]:
    """Names of the tensors that a QuantizeLinear takes."""
    quantizing = (node for node in _nodes(model) if _operator(node) == "QuantizeLinear")
    return {next(bytes(name) for field, name in _messages(node) if field == _NODE_INPUT) for node in quantizing}


def _weights(model: memoryview) -> Weights:
    total, external = 0, False
    rounded = _rounded(model)
    for field, graph in _messages(model):
        if field == _MODEL_GRAPH:
            for tensor in _graph_tensors(graph):
                size, elsewhere = _tensor(tensor, rounded)
                total, external = total + size, external or elsewhere
    return Weights(total, external)


def _graph_tensors(graph: memoryview) -> Iterator[memoryview]:
    for field, message in _messages(graph):
        if field == _GRAPH_INITIALIZER:
            yield message
        elif field == _GRAPH_SPARSE_INITIALIZER:
            yield from (inner for number, inner in _messages(message) if number in _SPARSE_TENSORS)
        elif field == _GRAPH_NODE:
            for number, attribute in _messages(message):
                if number == _NODE_ATTRIBUTE:
                    yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: memoryview) -> Iterator[memoryview]:
    for field, message in _messages(attribute):
        if field in _ATTRIBUTE_TENSORS:
            yield message
        elif field in _ATTRIBUTE_GRAPHS:
            yield from _graph_tensors(message)


def _tensor(tensor: memoryview, rounded: set[bytes]) -> tuple[int, bool]:
    """Bytes of the tensor's elements, one each if it is rounded, and whether they lie in another file."""
    elements, bits, external, is_rounded = 1, 0, False, False
    for field, wire, value in _fields(tensor):
        if field == _TENSOR_DIMS and wire == _VARINT:
            elements *= _integer(value)
        elif field == _TENSOR_DIMS:
            elements *= math.prod(_packed(_view(value)))
        elif field == _TENSOR_TYPE:
            bits = _BITS.get(_integer(value), 0)
        elif field == _TENSOR_LOCATION:
            external = _integer(value) == 1
        elif field == _TENSOR_NAME and rounded:
            is_rounded = bytes(_view(value)) in rounded
    return math.ceil(elements * (8 if is_rounded else bits) / 8), external


def _messages(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, content) of the length-delimited fields."""
    for field, wire, value in _fields(view):
        if wire == _LENGTH:
            yield field, _view(value)


def _fields(view: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of a message, one level deep."""
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(view, position)
            yield field, wire, value
            continue
        if wire == _LENGTH:
            length, position = _varint(view, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise OnnxFileError(f"wire type {wire} at byte {position}")
        if position + length > len(view):
            raise OnnxFileError(f"a field of {length} bytes at byte {position} goes past the end")
        yield field, wire, view[position : position + length]
        position += length


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(view) and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise OnnxFileError(f"a number at byte {position} has no end")


def _packed(view: memoryview) -> Iterator[int]:
    position = 0
    while position < len(view):
        value, position = _varint(view, position)
        yield value


def _integer(value: int | memoryview) -> int:
    if isinstance(value, int):
        return value
    raise OnnxFileError("bytes where a number belongs")


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise OnnxFileError("a number where bytes belong")
    return value


# --- writing --------------------------------------------------------------------------------------------------------


def chain_model(operators: tuple[str, ...], shape: tuple[int, ...], *, opset: int, ir_version: int = 8) -> bytes:
    """A model of float32 operators with one input and one output each, one after the other: x -> ... -> y."""
    names = ["x", *(f"h{index}" for index in range(1, len(operators))), "y"]
    nodes = b"".join(
        _message(1, _message(1, before.encode()) + _message(2, after.encode()) + _message(4, operator.encode()))
        for operator, before, after in zip(operators, names, names[1:], strict=False)
    )
    dimensions = b"".join(_message(1, _number(1, size)) for size in shape)
    tensor_type = _message(2, _message(1, _number(1, 1) + _message(2, dimensions)))
    graph = nodes + _message(2, b"chain")
    graph += _message(11, _message(1, b"x") + tensor_type) + _message(12, _message(1, b"y") + tensor_type)
    return _number(1, ir_version) + _message(7, graph) + _message(8, _message(1, b"") + _number(2, opset))


def _message(field: int, content: bytes) -> bytes:
    return _encode_varint(field << 3 | _LENGTH) + _encode_varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _encode_varint(field << 3 | _VARINT) + _encode_varint(value)


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
