"""LayerNorm, RmsNorm and GroupNorm: what may be set, and what follows from it.

In a language model GroupNorm normalizes each token's channels by itself: over time it would let a token see the future.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layers.declarations import dtypes
from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

KINDS = ("LayerNorm", "RmsNorm", "GroupNorm")
_QK_NORMS = ("none", "LayerNorm", "RmsNorm")

PARAMETERS: dict[str, Parameter] = {
    "kind": Parameter(
        type="string",
        choices=KINDS,
        default="LayerNorm",
        meaning="which normalization",
        source=(
            "Ba et al. 2016, arXiv 1607.06450; RmsNorm: Zhang & Sennrich 2019, arXiv 1910.07467; GroupNorm: Wu & "
            "He 2018, arXiv 1803.08494"
        ),
        search={"values": ["LayerNorm", "RmsNorm"]},
    ),
    "eps": Parameter(
        type="number",
        minimum=1e-12,
        maximum=0.1,
        default=None,
        meaning=(
            "added to the variance (RmsNorm: to the mean square) before the root, in float32; left out: 1e-5, "
            "RmsNorm 1e-6"
        ),
        source="TensorRT-LLM layers",
        search={"min": 1e-8, "max": 1e-4, "log": True},
    ),
    "elementwise_affine": Parameter(
        type="boolean",
        default=True,
        meaning="learned scale for each channel (LayerNorm, GroupNorm: and shift)",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
    "bias": Parameter(
        type="boolean",
        default=None,
        meaning="learned shift for each channel; left out: as elementwise_affine",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
    "num_groups": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        default=None,
        meaning="groups of channels that are normalized apart; left out: 1, GroupNorm 32",
        source="Wu & He 2018, arXiv 1803.08494: 32 groups, or 16 channels a group",
        search={"values": [1, 8, 16, 32]},
    ),
    "dtype": dtypes.NORM,
}

APPLIES: dict[str, Condition] = {
    "bias": Condition("norm.kind", ("LayerNorm", "GroupNorm")),
    "num_groups": Condition("norm.kind", ("RmsNorm", "GroupNorm")),
}

OF_QUERIES_AND_KEYS: dict[str, Parameter] = {
    "qk_layernorm": Parameter(
        type="boolean",
        default=False,
        meaning="a LayerNorm (eps 1e-5, scale and shift) over each head's queries and keys, before rotation",
        source="Henry et al. 2020, arXiv 2010.04245; Dehghani et al. 2023, arXiv 2302.05442",
        search={"values": [True, False]},
    ),
    "qk_norm": Parameter(
        type="string",
        choices=_QK_NORMS,
        default=None,
        meaning=(
            "a norm, with a learned scale (LayerNorm: and shift), over queries and keys before rotation; left out: "
            "LayerNorm where qk_layernorm is true, else none"
        ),
        source="Henry et al. 2020, arXiv 2010.04245; Qwen3: Yang et al. 2025, arXiv 2505.09388",
        search={"values": list(_QK_NORMS)},
    ),
    "qk_norm_scope": Parameter(
        type="string",
        choices=("head", "width"),
        default="head",
        meaning="what qk_norm normalizes: each head by itself, or all heads of a token together",
        source="head: Qwen3, Gemma 3; width: OLMo 2 (OLMo et al. 2024, arXiv 2501.00656)",
        search={"values": ["head", "width"]},
    ),
    "qk_norm_eps": Parameter(
        type="number",
        minimum=1e-12,
        maximum=0.1,
        default=None,
        meaning="eps of qk_norm; left out: 1e-5, RmsNorm 1e-6",
        source="the same",
        search={"min": 1e-8, "max": 1e-4, "log": True},
    ),
}
"""Parameters of the section `attention`."""

_NORMALIZED = Condition("attention.qk_norm", _QK_NORMS[1:])

OF_QUERIES_AND_KEYS_APPLIES: dict[str, Condition] = {"qk_norm_scope": _NORMALIZED, "qk_norm_eps": _NORMALIZED}

LATER: dict[str, str] = {}
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class NormConfig:
    """One normalization over the last dimension (`width` channels)."""

    kind: str
    width: int
    eps: float
    elementwise_affine: bool = True
    bias: bool = False
    num_groups: int = 1
    dtype: str = "float32"
    """In which it computes, whatever format it is given and answers in."""

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> NormConfig:
        return cls(
            kind=str(model["norm.kind"]),
            width=int(model["hidden_size"]),
            eps=float(model["norm.eps"]),
            elementwise_affine=bool(model["norm.elementwise_affine"]),
            bias=bool(model.get("norm.bias", False)),
            num_groups=int(model.get("norm.num_groups", 1)),
            dtype=str(model.get("norm.dtype", "float32")),
        )

    def parameter_count(self) -> int:
        return (self.width if self.elementwise_affine else 0) + (self.width if self.bias else 0)


def default_eps(kind: str) -> float:
    return 1e-6 if kind == "RmsNorm" else 1e-5


def follow(model: dict[str, Scalar]) -> None:
    """Fill in the defaults that follow from other parameters."""
    rms = model["norm.kind"] == "RmsNorm"
    model.setdefault("norm.eps", default_eps(str(model["norm.kind"])))
    if APPLIES["bias"].holds(model):
        model.setdefault("norm.bias", model["norm.elementwise_affine"])
    if APPLIES["num_groups"].holds(model):
        model.setdefault("norm.num_groups", 1 if rms else 32)


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    groups, width = int(model.get("norm.num_groups", 1)), int(model["hidden_size"])
    if width % groups:
        message = f"hidden_size {width} cannot be split into {groups} groups of channels"
        yield Violation("hidden_size % norm.num_groups", message, ("hidden_size", "norm.num_groups"))
    if model["norm.kind"] == "GroupNorm" and groups == width:
        message = "one channel a group would normalize every value to zero"
        yield Violation("norm.num_groups < hidden_size", message, ("hidden_size", "norm.num_groups"))
    if model.get("norm.bias") and not model["norm.elementwise_affine"]:
        message = "norm.bias needs norm.elementwise_affine"
        yield Violation("norm.bias needs elementwise_affine", message, ("norm.bias", "norm.elementwise_affine"))


def follow_queries_and_keys(model: dict[str, Scalar]) -> None:
    """Fill in the defaults of the norms of queries and keys."""
    if _NORMALIZED.holds(model):
        model.setdefault("attention.qk_norm_eps", default_eps(str(model["attention.qk_norm"])))


def broken_by_queries_and_keys(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    given = model.get("attention.qk_norm")
    if model["attention.qk_layernorm"] and given not in (None, "LayerNorm"):
        message = f"qk_layernorm asks for a LayerNorm of queries and keys, qk_norm for {given}"
        yield Violation("qk_layernorm and qk_norm", message, ("attention.qk_layernorm", "attention.qk_norm"))
    if int(model.get("attention.tp_size", 1)) > 1 and model.get("attention.qk_norm_scope") == "width":
        message = "devices that hold some of the heads cannot normalize the width of all of them"
        yield Violation("qk_norm_scope and tp_size", message, ("attention.qk_norm_scope", "attention.tp_size"))
