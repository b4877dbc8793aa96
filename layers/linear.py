"""Linear: y = x Wᵀ + b.

A model's linear layers take their widths from the other sections (`hidden_size`, `mlp.ffn_hidden_size`, heads and head
size), so nothing is declared here. ColumnLinear and RowLinear, which split over devices, come with tensor parallelism.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """One matrix product, with or without a bias."""

    in_features: int
    out_features: int
    bias: bool = True

    def parameter_count(self) -> int:
        return self.in_features * self.out_features + (self.out_features if self.bias else 0)

    def flops(self, rows: int) -> int:
        """Floating-point operations of the product over `rows` vectors, a multiply-add counted as two."""
        return 2 * rows * self.in_features * self.out_features
