"""Linear, ColumnLinear and RowLinear: y = x Wᵀ + b. No torch here.

A model's linear layers take their widths from the other sections (`hidden_size`, `mlp.ffn_hidden_size`, heads and head
size); the section `linear` declares the one that a probe of kind `linear` is. As in TensorRT-LLM, Linear is another
name of ColumnLinear: the three differ in how `tp_size` devices share the work, never in what they compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layers.base import Parameter, Scalar
from layers.rules import Condition, Violation

KINDS = ("Linear", "ColumnLinear", "RowLinear")

PARAMETERS: dict[str, Parameter] = {
    "kind": Parameter(
        type="string",
        choices=KINDS,
        default="Linear",
        meaning=(
            "which product, by how devices share it: Linear and ColumnLinear split what comes out, RowLinear splits "
            "what goes in and sums"
        ),
        source="TensorRT-LLM layers; Shoeybi et al. 2019, arXiv 1909.08053",
        search={"values": list(KINDS)},
    ),
    "in_features": Parameter(
        type="integer",
        minimum=1,
        maximum=262_144,
        meaning="channels that go in",
        source="multiples of 64 keep tensor cores busy: Anthony et al. 2024, arXiv 2401.14489",
        search={"values": [256, 512, 1024, 2048, 4096]},
    ),
    "out_features": Parameter(
        type="integer",
        minimum=1,
        maximum=2_000_000,
        meaning="channels that come out",
        source="multiples of 64 keep tensor cores busy: Anthony et al. 2024, arXiv 2401.14489",
        search={"values": [256, 512, 1024, 2048, 4096]},
    ),
    "bias": Parameter(
        type="boolean",
        default=True,
        meaning="a number added to each channel that comes out",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
}

APPLIES: dict[str, Condition] = {}

LATER: dict[str, str] = {"tp_size": "tensor parallelism", "gather_output": "tensor parallelism"}
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """One matrix product, with or without a bias."""

    in_features: int
    out_features: int
    bias: bool = True

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> LinearConfig:
        """The layer of the section `linear`."""
        return cls(model["linear.in_features"], model["linear.out_features"], model["linear.bias"])

    def parameter_count(self) -> int:
        return self.in_features * self.out_features + (self.out_features if self.bias else 0)

    def flops(self, rows: int) -> int:
        """Floating-point operations of the product over `rows` vectors, a multiply-add counted as two."""
        return 2 * rows * self.in_features * self.out_features


def follow(model: dict[str, Any]) -> None:
    """Fill in the defaults that follow from other parameters: there are none."""


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    """A single product has no rule of its own."""
    return iter(())
