"""Batches of any task: named inputs with their targets and weights. Numpy alone.

Legend: N batches, B examples of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DataError(Exception):
    """A dataset that cannot be used: its content is not what was named, or does not fit the model's shapes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples [B, ...]: a model's inputs by name; targets int32 and weights float32 of its logits' leading shape,
    [B, T] or, if an example has one target, [B]. What has weight 0 is padding."""

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)

    def in_batches(self, batch_size: int) -> Batches:
        """The same examples as batches of one size.

        The last batch is filled up with copies of the first example at weight 0: unlike zeros, those are inputs that
        every model takes (a row of padding alone has nothing to attend to).
        """
        rows = np.arange(-(-len(self) // batch_size) * batch_size)
        rows[len(self) :] = 0

        def batched(array: NDArray[Any]) -> NDArray[Any]:
            return array[rows].reshape(-1, batch_size, *array.shape[1:])

        weights = batched(self.weights)
        weights.reshape(len(rows), -1)[len(self) :] = 0
        return Batches({name: batched(array) for name, array in self.inputs.items()}, batched(self.targets), weights)


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches [N, B, ...] of one size: as `Batch`, with one more axis."""

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]

    def in_one(self) -> Batch:
        """All examples, those that fill up the last batch included."""

        def joined(array: NDArray[Any]) -> NDArray[Any]:
            return array.reshape(-1, *array.shape[2:])

        inputs = {name: joined(array) for name, array in self.inputs.items()}
        return Batch(inputs, joined(self.targets), joined(self.weights))

    def save(self, path: Path) -> None:
        np.savez(path, allow_pickle=False, **self.inputs, targets=self.targets, weights=self.weights)

    @staticmethod
    def load(path: Path) -> Batches:
        with np.load(path, allow_pickle=False) as arrays:
            inputs = {name: arrays[name] for name in arrays if name not in ("targets", "weights")}
            return Batches(inputs, arrays["targets"], arrays["weights"])
