"""Linear, ColumnLinear and RowLinear: y = x Wᵀ + b.

A model's linear layers take their widths from the other sections (`hidden_size`, `mlp.ffn_hidden_size`, heads and head
size); the section `linear` declares the one that a probe of kind `linear` is. As in TensorRT-LLM, Linear is another
name of ColumnLinear: the three differ in how `tp_size` devices share the work, never in what they compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layers.declarations import dtypes, tensor_parallel
from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

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
    "dtype": dtypes.layer_dtype("the product"),
    "tp_size": tensor_parallel.layer_tp_size("by what comes out, RowLinear by what goes in"),
    "gather_output": Parameter(
        type="boolean",
        default=True,
        meaning="every device gets all that comes out, not its part alone; RowLinear's is whole always",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
}

APPLIES: dict[str, Condition] = {"tp_size": tensor_parallel.SHARED, "gather_output": tensor_parallel.SHARED}

LATER: dict[str, str] = {}
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """One matrix product, with or without a bias."""

    in_features: int
    out_features: int
    bias: bool = True
    dtype: str | None = None
    """None: the model's, or that of the layer that it is a part of."""

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> LinearConfig:
        """The layer of the section `linear`."""
        return cls(
            in_features=int(model["linear.in_features"]),
            out_features=int(model["linear.out_features"]),
            bias=bool(model["linear.bias"]),
            dtype=dtypes.own_dtype(model, "linear"),
        )

    def parameter_count(self) -> int:
        return self.in_features * self.out_features + (self.out_features if self.bias else 0)

    def flops(self, rows: int) -> int:
        """Floating-point operations of the product over `rows` vectors, a multiply-add counted as two."""
        return 2 * rows * self.in_features * self.out_features


def follow(model: dict[str, Scalar]) -> None:
    """Fill in the defaults that follow from other parameters."""
    tensor_parallel.follow(model, "linear")
    dtypes.follow(model, "linear")


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    row = model["linear.kind"] == "RowLinear"
    shared = "linear.in_features" if row else "linear.out_features"
    yield from tensor_parallel.broken_rules(model, "linear", {shared: int(model[shared])})
    yield from dtypes.broken_rules(model, "linear")
    if row and model.get("linear.gather_output") is False:
        message = "what leaves a RowLinear is a sum over its devices, and so whole on each"
        yield Violation("linear.gather_output of RowLinear", message, ("linear.kind", "linear.gather_output"))
