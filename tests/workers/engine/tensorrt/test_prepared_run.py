"""Rows of a step are copied to their slots, and caches of bfloat16 are written as such: on a device of bytes here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workers.engine.base import RowWrite, TensorSpec
from workers.engine.tensorrt import cuda, tensors
from workers.engine.tensorrt.prepared_run import PreparedRun
from workers.engine.tensorrt.program import Program
from workers.engine.tensorrt.tensors import Binding, Buffers

STREAM: Any = SimpleNamespace(handle=0)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A device of 64 KiB, whose buffers lie one behind the other."""
    device = np.zeros(65_536, np.uint8)

    class FakeBuffer(cuda.Buffer):
        taken = 0

        def __init__(self, nbytes: int) -> None:
            self._pointer, self.nbytes = FakeBuffer.taken, nbytes
            FakeBuffer.taken += nbytes

        def write(self, array: np.ndarray, stream: cuda.Stream) -> None:
            assert array.nbytes == self.nbytes
            device[self.address : self.address + self.nbytes] = array.view(np.uint8).ravel()

        def read(self, array: np.ndarray, stream: cuda.Stream) -> None:
            array.view(np.uint8).ravel()[:] = device[self.address : self.address + self.nbytes]

    def enqueue(copy: cuda.StridedCopy, stream: cuda.Stream) -> None:
        source, target = copy.source, copy.target
        for _ in range(copy.count):
            device[target : target + copy.width] = device[source : source + copy.width]
            source, target = source + copy.source_pitch, target + copy.target_pitch

    monkeypatch.setattr(cuda.BufferPart, "write", FakeBuffer.write)
    monkeypatch.setattr(cuda.BufferPart, "read", FakeBuffer.read)
    monkeypatch.setattr(tensors.cuda, "Buffer", FakeBuffer)
    monkeypatch.setattr(cuda.StridedCopy, "enqueue", enqueue)
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


def _of_two_layers(keys_of_the_second: int) -> PreparedRun:
    keys = {"key_0": 5, "key_1": keys_of_the_second, "value_0": 5, "value_1": keys_of_the_second}
    shapes = {f"past_{name}": (2, 2, count, 64) for name, count in keys.items()}
    shapes |= dict.fromkeys(reversed(keys), (2, 2, 1, 64))
    bindings = tuple(
        Binding(TensorSpec(name, np.dtype(np.float16), shape), "HALF", is_input=name.startswith("past"))
        for name, shape in shapes.items()
    )
    return PreparedRun(Program(None, FakeContext(), bindings), Buffers(bindings))


@pytest.mark.parametrize(("keys_of_the_second", "copies"), [(5, 1), (8, 4)])
def test_rows_of_layers_that_are_alike_are_written_by_one_copy(
    memory: np.ndarray, keys_of_the_second: int, copies: int
) -> None:
    prepared = _of_two_layers(keys_of_the_second)
    caches = [each for each in prepared.program.bindings if each.is_input]
    for number, binding in enumerate(caches):
        cache = np.full(binding.spec.shape, -1, np.float16)
        row = np.full((*cache.shape[:2], 1, 64), number, np.float16)
        prepared.buffers.write({binding.spec.name: cache, binding.spec.name.removeprefix("past_"): row}, STREAM)
    prepared.keep_rows([RowWrite(each.spec.name.removeprefix("past_"), each.spec.name, 3) for each in caches])
    assert len(prepared.copies) == copies
    prepared.enqueue(STREAM)
    for number, binding in enumerate(caches):
        expected = np.full(binding.spec.shape, -1, np.float16)
        expected[:, :, 3] = number
        np.testing.assert_array_equal(prepared.buffers.read_one(binding.spec.name, STREAM), expected)


def test_numbers_are_rounded_to_the_nearest_bfloat16(memory: np.ndarray) -> None:
    prepared = _prepared("BF16", np.float32)
    row = np.full((2, 3, 1, 4), 1 + 2**-8, np.float32)
    row[0] = 1 + 2**-8 + 2**-20
    prepared.buffers.write({"key_0": row}, STREAM)
    found = prepared.buffers.read_one("key_0", STREAM)
    assert found[0].max() == found[0].min() == 1 + 2**-7
    assert found[1].max() == found[1].min() == 1, "halfway: to the even one"
