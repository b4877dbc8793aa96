"""A TensorRT engine's tensors, and memory for them on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import TensorSpec
from ..protocol import RequestError
from . import cuda

_TYPES: Mapping[str, tuple[type[Any], float]] = {
    "FLOAT": (np.float32, 4),
    "HALF": (np.float16, 2),
    "BF16": (np.float32, 2),
    "INT32": (np.int32, 4),
    "INT64": (np.int64, 8),
    "INT8": (np.int8, 1),
    "UINT8": (np.uint8, 1),
    "BOOL": (np.bool_, 1),
}
"""The library's type -> NumPy's, and bytes an element. NumPy has no bfloat16: it is widened to float32."""


@dataclass(frozen=True)
class Binding:
    """An input or output: what a caller sees of it, and what it is on the device."""

    spec: TensorSpec
    type_name: str
    is_input: bool

    @classmethod
    def of(cls, name: str, dtype: Any, shape: Any, *, is_input: bool) -> Binding:
        if dtype.name not in _TYPES:
            raise RequestError("unsupported", f"{name} is a {dtype.name}; engines take {', '.join(_TYPES)}")
        spec = TensorSpec(name, np.dtype(_TYPES[dtype.name][0]), tuple(shape))
        return cls(spec, dtype.name, is_input)

    @property
    def nbytes(self) -> int:
        """On the device."""
        return math.ceil(math.prod(self.spec.shape) * _TYPES[self.type_name][1])

    def __str__(self) -> str:
        return f"{self.spec.name}: bfloat16 {list(self.spec.shape)}" if self.type_name == "BF16" else str(self.spec)


def bindings_of(trt: Any, engine: Any) -> tuple[Binding, ...]:
    """All inputs and outputs of an engine, in its order."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(
        Binding.of(
            name,
            engine.get_tensor_dtype(name),
            engine.get_tensor_shape(name),
            is_input=engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )
        for name in names
    )


def bindings_of_network(network: Any) -> tuple[Binding, ...]:
    """The same of a network that is not built yet."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return tuple(
        Binding.of(tensor.name, tensor.dtype, tensor.shape, is_input=tensor in inputs) for tensor in (*inputs, *outputs)
    )


ALIGNMENT = 256
"""Bytes that the address of a tensor is a multiple of (TensorRT, IExecutionContext.setTensorAddress)."""


class Buffers:
    """Memory for each tensor of an engine; `shared` ones belong to somebody else.

    Inputs of one shape lie one after another, in the order of their names, and so do outputs: what is copied between
    them can be one copy.
    """

    def __init__(self, bindings: tuple[Binding, ...], shared: Mapping[str, cuda.Buffer] | None = None) -> None:
        self._bindings = bindings
        self._shared = dict(shared or {})
        self._own: dict[str, cuda.Buffer] = {}
        self._rows: list[cuda.Buffer] = []
        try:
            for alike in _alike([each for each in bindings if each.spec.name not in self._shared]):
                self._allocate(alike)
        except cuda.CudaError:
            self.free()
            raise

    def _allocate(self, alike: Sequence[Binding]) -> None:
        size = alike[0].nbytes
        if len(alike) == 1 or size % ALIGNMENT:
            self._own |= {each.spec.name: cuda.Buffer(size) for each in alike}
            return
        row = cuda.Buffer(size * len(alike))
        self._rows.append(row)
        self._own |= {each.spec.name: cuda.BufferPart(row, index * size, size) for index, each in enumerate(alike)}

    def __getitem__(self, name: str) -> cuda.Buffer:
        return self._shared[name] if name in self._shared else self._own[name]

    def binding(self, name: str) -> Binding:
        """The tensor of that name."""
        return next(each for each in self._bindings if each.spec.name == name)

    def addresses(self) -> Iterator[tuple[str, int]]:
        for binding in self._bindings:
            yield binding.spec.name, self[binding.spec.name].address

    def write(self, arrays: Mapping[str, np.ndarray], stream: cuda.Stream) -> None:
        """Inputs, contiguous and of their specs."""
        narrow = {each.spec.name for each in self._bindings if each.type_name == "BF16"}
        for name, array in arrays.items():
            self[name].write(_as_bfloat16(array) if name in narrow else array, stream)

    def read(self, stream: cuda.Stream) -> dict[str, np.ndarray]:
        """Outputs by name."""
        return {each.spec.name: self._read(each, stream) for each in self._bindings if not each.is_input}

    def read_one(self, name: str, stream: cuda.Stream) -> np.ndarray:
        """One output."""
        return self._read(self.binding(name), stream)

    def _read(self, binding: Binding, stream: cuda.Stream) -> np.ndarray:
        if binding.type_name != "BF16":
            array = np.empty(binding.spec.shape, binding.spec.dtype)
            self[binding.spec.name].read(array, stream)
            return array
        raw = np.empty(binding.spec.shape, np.uint16)
        self[binding.spec.name].read(raw, stream)
        return (raw.astype(np.uint32) << 16).view(np.float32)

    def free(self) -> None:
        for buffer in (*self._own.values(), *self._rows):
            buffer.free()
        self._own.clear()
        self._rows.clear()


def _alike(bindings: Iterable[Binding]) -> list[list[Binding]]:
    """Those of one direction, type and shape together, by name."""
    groups: dict[object, list[Binding]] = {}
    for binding in sorted(bindings, key=lambda each: each.spec.name):
        groups.setdefault((binding.is_input, binding.type_name, binding.spec.shape), []).append(binding)
    return list(groups.values())


def _as_bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, rounded to the nearest, of two to the even one. NaN may become infinite."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
