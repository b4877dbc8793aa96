"""Rows of a step are copied to their slots, and caches of bfloat16 are written as such: on a device of bytes here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workers.engine.base import RowWrite, TensorSpec
from workers.engine.tensorrt import cuda, prepared_run, tensors
from workers.engine.tensorrt.prepared_run import PreparedRun
from workers.engine.tensorrt.program import Program
from workers.engine.tensorrt.tensors import Binding, Buffers

STREAM: Any = SimpleNamespace(handle=0)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A device of 4 KiB, whose buffers lie one behind the other."""
    device = np.zeros(4096, np.uint8)

    class FakeBuffer:
        taken = 0

        def __init__(self, nbytes: int) -> None:
            self.address, self.nbytes = FakeBuffer.taken, nbytes
            FakeBuffer.taken += nbytes

        def write(self, array: np.ndarray, stream: cuda.Stream) -> None:
            assert array.nbytes == self.nbytes
            device[self.address : self.address + self.nbytes] = array.view(np.uint8).ravel()

        def read(self, array: np.ndarray, stream: cuda.Stream) -> None:
            array.view(np.uint8).ravel()[:] = device[self.address : self.address + self.nbytes]

    class FakeCopy:
        def __init__(self, **geometry: int) -> None:
            self.geometry = geometry

        def enqueue(self, stream: cuda.Stream) -> None:
            source, target, width = (self.geometry[name] for name in ("source", "target", "width"))
            for _ in range(self.geometry["count"]):
                device[target : target + width] = device[source : source + width]
                source, target = source + self.geometry["source_pitch"], target + self.geometry["target_pitch"]

    monkeypatch.setattr(tensors.cuda, "Buffer", FakeBuffer)
    monkeypatch.setattr(prepared_run.cuda, "StridedCopy", FakeCopy)
    return device


class FakeContext:
    """Its engine computes nothing."""

    def execute_async_v3(self, handle: int) -> bool:
        return True


def _prepared(type_name: str, dtype: type[Any]) -> PreparedRun:
    shapes = {"past_key_0": (2, 3, 5, 4), "key_0": (2, 3, 1, 4)}
    bindings = tuple(
        Binding(TensorSpec(name, np.dtype(dtype), shape), type_name, is_input=name.startswith("past"))
        for name, shape in shapes.items()
    )
    return PreparedRun(Program(None, FakeContext(), bindings), Buffers(bindings))


@pytest.mark.parametrize(("type_name", "dtype"), [("FLOAT", np.float32), ("HALF", np.float16), ("BF16", np.float32)])
def test_a_row_of_each_sequence_and_head_goes_to_its_slot(memory: np.ndarray, type_name: str, dtype: type[Any]) -> None:
    prepared = _prepared(type_name, dtype)
    # Few enough digits for each of the formats.
    cache = np.arange(120, dtype=dtype).reshape(2, 3, 5, 4)
    row = -np.arange(1, 25, dtype=dtype).reshape(2, 3, 1, 4)
    prepared.buffers.write({"past_key_0": cache, "key_0": row}, STREAM)
    prepared.keep_rows([RowWrite("key_0", "past_key_0", 3)])
    prepared.enqueue(STREAM)
    expected = cache.copy()
    expected[:, :, 3] = row[:, :, 0]
    np.testing.assert_array_equal(prepared.buffers.read_one("past_key_0", STREAM), expected)
    np.testing.assert_array_equal(prepared.buffers.read_one("key_0", STREAM), row)


def test_numbers_are_rounded_to_the_nearest_bfloat16(memory: np.ndarray) -> None:
    prepared = _prepared("BF16", np.float32)
    row = np.full((2, 3, 1, 4), 1 + 2**-8, np.float32)
    row[0] = 1 + 2**-8 + 2**-20
    prepared.buffers.write({"key_0": row}, STREAM)
    found = prepared.buffers.read_one("key_0", STREAM)
    assert found[0].max() == found[0].min() == 1 + 2**-7
    assert found[1].max() == found[1].min() == 1, "halfway: to the even one"
