"""MLP, GatedMLP and FusedGatedMLP: what may be set, and what follows from it.

`MLP` is act(x W₁) W₂; with swiglu or geglu its first product is twice as wide and gates itself, as in TensorRT-LLM.
`GatedMLP` is (act(x Wg) ∘ x Wu) W₂ (Shazeer 2020, arXiv 2002.05202); in `FusedGatedMLP` Wg and Wu are one product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layers.declarations import dtypes, tensor_parallel
from layers.declarations.linear import LinearConfig
from layers.declarations.rules import Condition, Violation, round_up
from layers.parameter import Parameter, Scalar

KINDS = ("MLP", "GatedMLP", "FusedGatedMLP")
GATED_ACTIVATIONS = ("swiglu", "geglu")
ACTIVATIONS = (
    "relu",
    "tanh",
    "gelu",
    "gelu_new",
    "gelu_fast",
    "gelu_pytorch_tanh",
    "silu",
    "softplus",
    "squared-relu",
    "sigmoid",
    "quick_gelu",
    "identity",
    *GATED_ACTIVATIONS,
)

NO_EXPERTS = (
    "TensorRT 8.6 cannot route tokens to experts: every expert would be computed for each token, and the latency "
    "would be of a model that nobody serves"
)

PARAMETERS: dict[str, Parameter] = {
    "kind": Parameter(
        type="string",
        choices=KINDS,
        refused={"MoE": NO_EXPERTS},
        default="MLP",
        meaning="which feed-forward layer",
        source="Vaswani et al. 2017, arXiv 1706.03762; gated: Shazeer 2020, arXiv 2002.05202",
        search={"values": list(KINDS)},
    ),
    "ffn_hidden_size": Parameter(
        type="integer",
        minimum=1,
        maximum=262_144,
        default=None,
        meaning="inner width; left out: 4 x hidden_size, gated: 8/3 x hidden_size rounded up to a multiple of 64",
        source="Vaswani et al. 2017, arXiv 1706.03762; Shazeer 2020, arXiv 2002.05202",
        search={"values": [256, 512, 1024, 2048]},
    ),
    "hidden_act": Parameter(
        type="string",
        choices=ACTIVATIONS,
        default=None,
        meaning="activation; a gated layer applies it to its gate; left out: gelu, gated: silu",
        source="Radford et al. 2019 (gelu); Touvron et al. 2023, arXiv 2302.13971 (silu)",
        search={"values": ["gelu", "silu", "relu"]},
    ),
    "bias": Parameter(
        type="boolean",
        default=True,
        meaning="biases in all of its products",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
    "dtype": dtypes.layer_dtype("the feed-forward products"),
    "tp_size": tensor_parallel.layer_tp_size("by its inner width"),
}

APPLIES: dict[str, Condition] = {"tp_size": tensor_parallel.SHARED}

LATER: dict[str, str] = dict.fromkeys(
    ("num_experts", "top_k", "router_loss_weight"), f"a mixture of experts ({NO_EXPERTS})"
)
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class MlpConfig:
    """One feed-forward layer."""

    kind: str
    hidden_size: int
    ffn_hidden_size: int
    hidden_act: str
    bias: bool = True
    dtype: str | None = None
    """None: the model's."""

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> MlpConfig:
        return cls(
            kind=str(model["mlp.kind"]),
            hidden_size=int(model["hidden_size"]),
            ffn_hidden_size=int(model["mlp.ffn_hidden_size"]),
            hidden_act=str(model["mlp.hidden_act"]),
            bias=bool(model["mlp.bias"]),
            dtype=dtypes.own_dtype(model, "mlp"),
        )

    @property
    def doubled(self) -> bool:
        """The first product makes both the gate and what it gates."""
        return self.kind == "FusedGatedMLP" or self.hidden_act in GATED_ACTIVATIONS

    @property
    def linears(self) -> tuple[LinearConfig, ...]:
        """Its products, the last one back to `hidden_size`."""
        first = LinearConfig(self.hidden_size, self.ffn_hidden_size * (2 if self.doubled else 1), self.bias)
        last = LinearConfig(self.ffn_hidden_size, self.hidden_size, self.bias)
        return (first, first, last) if self.kind == "GatedMLP" else (first, last)

    def parameter_count(self) -> int:
        return sum(linear.parameter_count() for linear in self.linears)

    def flops(self, rows: int) -> int:
        return sum(linear.flops(rows) for linear in self.linears)


def follow(model: dict[str, Scalar]) -> None:
    """Fill in the defaults that follow from other parameters."""
    tensor_parallel.follow(model, "mlp")
    dtypes.follow(model, "mlp")
    width = int(model["hidden_size"])
    gated = model["mlp.kind"] != "MLP"
    model.setdefault("mlp.hidden_act", "silu" if gated else "gelu")
    gated = gated or model["mlp.hidden_act"] in GATED_ACTIVATIONS
    model.setdefault("mlp.ffn_hidden_size", round_up(8 * width / 3, 64) if gated else 4 * width)


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    width = int(model["mlp.ffn_hidden_size"])
    yield from tensor_parallel.broken_rules(model, "mlp", {"mlp.ffn_hidden_size": width})
    yield from dtypes.broken_rules(model, "mlp")
    kind, activation = model["mlp.kind"], model["mlp.hidden_act"]
    paths = ("mlp.kind", "mlp.hidden_act")
    if kind != "MLP" and activation in GATED_ACTIVATIONS:
        message = f"{kind} has a gate of its own: its hidden_act must not be gated, {activation} is"
        yield Violation(f"mlp.hidden_act not gated in {kind}", message, paths)
