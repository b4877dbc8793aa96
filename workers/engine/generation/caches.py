"""Keys and values of earlier tokens, as the engine of a step takes them. Its tensors' names say what they are.

An output `key_3` is new rows of the input `past_key_3`, along ROW_AXIS. A cache of C keys holds the last C tokens: that
at position p lies in slot p mod C. An input `positions…` of C numbers says where in the text each slot's key is from.
What else an engine takes is the same at each step: `source_mask`, and keys and values of an encoder's output,
`source_key_3` and `source_value_3`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..base import ROW_AXIS, RowWrite, TensorSpec
from ..protocol import invalid

NOTHING = -1
"""The position of an empty slot."""

_PAST, _POSITIONS, _SOURCE = "past_", "positions", "source_"


def row_writes(inputs: Iterable[TensorSpec], position: int) -> list[RowWrite]:
    """Those of a step that reads the token at `position`."""
    return [
        RowWrite(spec.name.removeprefix(_PAST), spec.name, position % spec.shape[ROW_AXIS])
        for spec in _caches_of(inputs)
    ]


def positions_in(capacity: int, length: int) -> np.ndarray:
    """Where the key of each slot is from, int32, once a text has `length` tokens."""
    slots = np.arange(capacity, dtype=np.int32)
    last = length - 1 - (length - 1 - slots) % capacity
    return np.where(last >= 0, last, NOTHING).astype(np.int32)


class Caches:
    """The caches of one engine, on the host."""

    def __init__(self, inputs: Iterable[TensorSpec]) -> None:
        self._specs = tuple(inputs)
        self._arrays = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in _caches_of(self._specs)}
        self._lasting = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self._specs if _is_lasting(spec)}
        if not self._arrays:
            raise invalid("the engine of a step takes past_key_0, past_value_0, ...: this one takes none")

    def fill(self, rows: Mapping[str, np.ndarray], positions: np.ndarray) -> None:
        """Write rows of tokens by the names of a graph's outputs: those that the caches have room for, the last ones.

        rows [B, K, T, H] lie at `positions` [T], which rise.
        """
        for name, cache in self._arrays.items():
            capacity = cache.shape[ROW_AXIS]
            kept = positions[-capacity:]
            cache[:, :, kept % capacity] = rows[name.removeprefix(_PAST)][:, :, len(positions) - len(kept) :]

    def keep(self, given: Mapping[str, np.ndarray]) -> None:
        """Take what is the same at each step, by name; others are left."""
        for name, array in self._lasting.items():
            array[...] = given[name]

    def fill_from(self, others: Caches, length: int) -> None:
        """Write what other caches of as many keys or fewer hold of a text of `length` tokens."""
        self.keep(others._lasting)
        for name, cache in self._arrays.items():
            other = others._arrays[name]
            slots = np.arange(other.shape[ROW_AXIS])
            positions = positions_in(other.shape[ROW_AXIS], length)
            held = positions != NOTHING
            cache[:, :, positions[held] % cache.shape[ROW_AXIS]] = other[:, :, slots[held]]

    def step(self, tokens_B: np.ndarray, position: int) -> dict[str, np.ndarray]:
        """The inputs of the step that reads `tokens_B` at `position`, all tokens before it being in the caches."""
        inputs: dict[str, np.ndarray] = {
            "tokens": tokens_B[:, None].astype(np.int32),
            "position": np.array([position], np.int32),
            **self._arrays,
            **self._lasting,
        }
        for spec in self._specs:
            if spec.name.startswith(_POSITIONS):
                inputs[spec.name] = positions_in(spec.shape[0], position)
        # A runtime may leave out an input that its graph does not use.
        return {spec.name: inputs[spec.name] for spec in self._specs}


def _is_lasting(spec: TensorSpec) -> bool:
    return spec.name.startswith(_SOURCE)


def _caches_of(inputs: Iterable[TensorSpec]) -> list[TensorSpec]:
    return [spec for spec in inputs if spec.name.startswith(_PAST)]
