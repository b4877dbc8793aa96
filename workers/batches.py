"""A text's tokens as batches: windows with their next-token targets. Numpy alone.

Legend: N batches, B sequences of a batch, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DataError(Exception):
    """A dataset that cannot be used: its content is not what was named, or too short for the model's windows."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Windows with their next-token targets: inputs and targets int32, weights float32, each [N, B, T].

    Positions with weight 0 are padding.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]

    def save(self, path: Path) -> None:
        np.savez(path, allow_pickle=False, inputs=self.inputs, targets=self.targets, weights=self.weights)

    @staticmethod
    def load(path: Path) -> Batches:
        with np.load(path, allow_pickle=False) as arrays:
            return Batches(arrays["inputs"], arrays["targets"], arrays["weights"])


def load_tokens(path: Path) -> NDArray[Any]:
    """The tokens of a text part: 1-D, of the integer type that they were stored in."""
    with np.load(path, allow_pickle=False) as arrays:
        tokens = arrays["tokens"]
    if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
        raise DataError(f"{path.name}: tokens are {tokens.dtype} of shape {tokens.shape}, not a row of integers")
    return tokens


def evaluation_batches(
    tokens: NDArray[Any], *, sequence_length: int, batch_size: int, windows_at_most: int | None = None
) -> Batches:
    """A whole part as contiguous windows of `sequence_length`, each position with its next token as the target.

    Every token but the first is a target once. The last window is padded with weight 0, and so is the last batch.
    With `windows_at_most`, that many full windows spread evenly over the part instead: a fixed, unbiased sample of it.
    """
    targets_count = len(tokens) - 1
    if targets_count < 1:
        raise DataError(f"a part of {len(tokens)} tokens has no next token to predict")
    windows = -(-targets_count // sequence_length)
    full = targets_count // sequence_length
    chosen = np.arange(windows)
    if windows_at_most is not None and windows_at_most < full:
        chosen = np.arange(windows_at_most) * full // windows_at_most
    padded = np.zeros(windows * sequence_length + 1, np.int32)
    padded[: len(tokens)] = tokens
    shape = (-(-len(chosen) // batch_size), batch_size, sequence_length)

    def batched(rows: NDArray[Any]) -> NDArray[Any]:
        whole = np.zeros((shape[0] * batch_size, sequence_length), rows.dtype)
        whole[: len(chosen)] = rows.reshape(windows, sequence_length)[chosen]
        return whole.reshape(shape)

    weights = (np.arange(windows * sequence_length) < targets_count).astype(np.float32)
    return Batches(batched(padded[:-1]), batched(padded[1:]), batched(weights))
