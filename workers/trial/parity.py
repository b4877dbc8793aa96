"""Does an engine compute the same function as PyTorch in float32?

Legend: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 5e-2}
"""The largest allowed parity error over all tokens, by the model's number format.

Correct engines measured 3e-7 in float32 and 9e-4 in float16 (small models; it grows with depth); bfloat16 rounds eight
times coarser than float16, tf32 like float16. A wrong engine (a missing mask, a mean over the wrong axes) is at 1e-2
and above."""

QUANTIZED_TOLERANCES = {"none": 0.0, "int8": 3e-2, "fp8": 1e-1}
"""The same for a quantized engine against its quantized graph: both round, and a value between two of so few numbers
may be rounded to either. About the error of the rounding itself (int8 2e-2, fp8 5e-2 on small models)."""

WORST_TOKEN_FACTOR = 10
"""How far above the tolerance a single token may be: if logits are small, rounding alone is relatively large."""


def coarsest(dtypes: Iterable[str]) -> str:
    """The dtype of a model that rounds most; its tolerance is the engine's."""
    return max(dtypes, key=TOLERANCES.__getitem__)


def tolerance(dtype: str, quantization: str) -> float:
    """The largest parity error that an engine of a number format and a quantization may have."""
    return max(TOLERANCES[dtype], QUANTIZED_TOLERANCES[quantization])


@dataclass(frozen=True, slots=True)
class Parity:
    """‖engine − reference‖ / ‖reference‖ over all tokens, and for the worst token."""

    error: float
    worst: float

    def kept(self, tolerance: float) -> bool:
        """Whether the errors are within the tolerance; NaN never is."""
        return self.error <= tolerance and self.worst <= WORST_TOKEN_FACTOR * tolerance


def compare(engine_BTV: NDArray[Any], reference_BTV: NDArray[Any]) -> Parity:
    """Compare logits. Raises ValueError if their shapes differ."""
    if engine_BTV.shape != reference_BTV.shape:
        raise ValueError(f"the engine's logits are {engine_BTV.shape}, the reference's {reference_BTV.shape}")
    off_squared, norm_squared, worst = 0.0, 0.0, 0.0
    for engine_TV, reference_TV in zip(engine_BTV, reference_BTV, strict=True):
        reference = reference_TV.astype(np.float64)
        off_T = np.square(engine_TV.astype(np.float64) - reference).sum(-1)
        norm_T = np.square(reference).sum(-1)
        off_squared += float(off_T.sum())
        norm_squared += float(norm_T.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_T = np.where(off_T == 0, 0.0, np.sqrt(off_T / norm_T))
        worst = float(np.maximum(worst, ratio_T.max()))
    error = 0.0 if off_squared == 0 else math.sqrt(off_squared / norm_squared) if norm_squared > 0 else math.inf
    return Parity(error, worst)


def compare_files(engine: Path, reference: Path, name: str) -> Parity:
    """Compare the array `name` of two `.npz` files."""
    with np.load(engine, allow_pickle=False) as ours, np.load(reference, allow_pickle=False) as theirs:
        return compare(ours[name], theirs[name])
