"""Attention: what may be set, and what follows from it. No torch here.

Multi-head, grouped-query (`num_kv_heads` < heads) and multi-query (1) self-attention:
softmax(Q Kᵀ / (q_scaling √head_size) + mask) V, then a projection back to `hidden_size`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layers.base import Parameter, Scalar
from layers.linear import LinearConfig
from layers.normalization import NormConfig
from layers.rules import Condition, Violation

MASK_TYPES = ("causal", "bidirectional")
ROTARY_TYPES = ("rope_gpt_neox", "rope_gptj")
POSITION_TYPES = ("learned_absolute", *ROTARY_TYPES)
QK_LAYERNORM_EPS = 1e-5

PARAMETERS: dict[str, Parameter] = {
    "num_attention_heads": Parameter(
        type="integer",
        minimum=1,
        maximum=1024,
        meaning="query heads",
        source=(
            "Vaswani et al. 2017, arXiv 1706.03762; head sizes 64 and 128 keep tensor cores busy: Anthony et al. "
            "2024, arXiv 2401.14489"
        ),
        search={"values": [2, 4, 8, 12, 16]},
    ),
    "num_kv_heads": Parameter(
        type="integer",
        minimum=1,
        maximum=1024,
        default=None,
        meaning="key and value heads, each shared by an equal number of query heads; left out: num_attention_heads",
        source="Ainslie et al. 2023, arXiv 2305.13245; 1: Shazeer 2019, arXiv 1911.02150",
        search={"values": [1, 2, 4]},
    ),
    "attention_head_size": Parameter(
        type="integer",
        minimum=1,
        maximum=1024,
        default=None,
        meaning="channels of one head; left out: hidden_size / num_attention_heads",
        source="Anthony et al. 2024, arXiv 2401.14489: 64 or 128",
        search={"values": [32, 64, 128]},
    ),
    "attention_mask_type": Parameter(
        type="string",
        choices=MASK_TYPES,
        default="causal",
        meaning="which tokens a token attends to: those up to itself (causal) or all (bidirectional)",
        source="TensorRT-LLM layers",
    ),
    "position_embedding_type": Parameter(
        type="string",
        choices=POSITION_TYPES,
        default="learned_absolute",
        meaning=(
            "how a token's position enters: a learned table added to the embedding, or rotations of queries and "
            "keys (rope_gpt_neox: halves, rope_gptj: neighbours)"
        ),
        source="TensorRT-LLM layers; Radford et al. 2019; rope: Su et al. 2021, arXiv 2104.09864",
        search={"values": ["learned_absolute", "rope_gpt_neox"]},
    ),
    "max_position_embeddings": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=None,
        meaning=(
            "the longest sequence that the model takes (learned_absolute: rows of the table); left out: the "
            "longest that is trained or measured"
        ),
        source="TensorRT-LLM layers",
    ),
    "rotary_embedding_base": Parameter(
        type="number",
        minimum=1.0,
        maximum=1e9,
        default=10_000.0,
        meaning="base of the rotations' wavelengths",
        source="Su et al. 2021, arXiv 2104.09864",
        search={"values": [10_000.0, 100_000.0, 500_000.0]},
    ),
    "rotary_embedding_percentage": Parameter(
        type="number",
        minimum=0.0,
        maximum=1.0,
        default=1.0,
        meaning="share of a head's channels that is rotated: head size times it, rounded down",
        source="TensorRT-LLM layers; 0.25: Black et al. 2022, arXiv 2204.06745",
        search={"values": [0.25, 0.5, 1.0]},
    ),
    "bias": Parameter(
        type="boolean",
        default=True,
        meaning="biases in the query, key, value and output products",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
    "q_scaling": Parameter(
        type="number",
        minimum=1e-4,
        maximum=1e4,
        default=1.0,
        meaning="scores are divided by q_scaling x the root of the head size",
        source="TensorRT-LLM layers",
        search={"min": 0.25, "max": 4.0, "log": True},
    ),
    "qk_layernorm": Parameter(
        type="boolean",
        default=False,
        meaning="a LayerNorm (eps 1e-5, scale and shift) over each head's queries and keys, before rotation",
        source="Henry et al. 2020, arXiv 2010.04245; Dehghani et al. 2023, arXiv 2302.05442",
        search={"values": [True, False]},
    ),
}

APPLIES: dict[str, Condition] = {
    "rotary_embedding_base": Condition("attention.position_embedding_type", ROTARY_TYPES),
    "rotary_embedding_percentage": Condition("attention.position_embedding_type", ROTARY_TYPES),
}

LATER: dict[str, str] = {
    "cross_attention": "encoder-decoder models",
    "relative_attention": "relative attention",
    "num_buckets": "relative attention",
    "max_distance": "relative attention",
    "tp_size": "tensor parallelism",
}
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """One self-attention layer."""

    hidden_size: int
    num_attention_heads: int
    num_kv_heads: int
    attention_head_size: int
    max_position_embeddings: int
    attention_mask_type: str = "causal"
    position_embedding_type: str = "learned_absolute"
    rotary_embedding_base: float = 10_000.0
    rotary_embedding_percentage: float = 1.0
    bias: bool = True
    q_scaling: float = 1.0
    qk_layernorm: bool = False

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> AttentionConfig:
        section = {name: model[f"attention.{name}"] for name in PARAMETERS if f"attention.{name}" in model}
        return cls(hidden_size=model["hidden_size"], **section)

    @property
    def qkv(self) -> LinearConfig:
        """Queries, keys and values in one product."""
        heads = self.num_attention_heads + 2 * self.num_kv_heads
        return LinearConfig(self.hidden_size, heads * self.attention_head_size, self.bias)

    @property
    def dense(self) -> LinearConfig:
        return LinearConfig(self.num_attention_heads * self.attention_head_size, self.hidden_size, self.bias)

    @property
    def qk_norm(self) -> NormConfig | None:
        if not self.qk_layernorm:
            return None
        return NormConfig("LayerNorm", self.attention_head_size, QK_LAYERNORM_EPS, bias=True)

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated; 0 without rotation."""
        if self.position_embedding_type not in ROTARY_TYPES:
            return 0
        return int(self.attention_head_size * self.rotary_embedding_percentage)

    def parameter_count(self) -> int:
        norms = 2 * self.qk_norm.parameter_count() if self.qk_norm else 0
        return self.qkv.parameter_count() + self.dense.parameter_count() + norms

    def flops(self, batch_size: int, sequence_length: int) -> int:
        """All products, scores of masked pairs included: the engine computes them."""
        rows = batch_size * sequence_length
        pairs = rows * sequence_length * self.num_attention_heads
        return self.qkv.flops(rows) + self.dense.flops(rows) + 2 * 2 * pairs * self.attention_head_size


def follow(model: dict[str, Any]) -> None:
    """Fill in the defaults that follow from other parameters.

    `attention_head_size` stays absent where the heads do not divide the width: that is a broken rule, not a default.
    """
    heads = model["attention.num_attention_heads"]
    model.setdefault("attention.num_kv_heads", heads)
    if model["hidden_size"] % heads == 0:
        model.setdefault("attention.attention_head_size", model["hidden_size"] // heads)


def broken_rules(model: Mapping[str, Any]) -> Iterator[Violation]:
    heads, kv_heads = model["attention.num_attention_heads"], model["attention.num_kv_heads"]
    if heads % kv_heads:
        message = f"{heads} query heads cannot share {kv_heads} key and value heads equally"
        paths = ("attention.num_attention_heads", "attention.num_kv_heads")
        yield Violation("num_attention_heads % num_kv_heads", message, paths)
    if "attention.attention_head_size" not in model:
        message = (
            f"hidden_size {model['hidden_size']} is not a multiple of {heads} heads; attention_head_size is not given"
        )
        paths = ("hidden_size", "attention.num_attention_heads")
        yield Violation("hidden_size % num_attention_heads", message, paths)
        return
    config = AttentionConfig.of(model)
    if config.position_embedding_type in ROTARY_TYPES and (config.rotary_dim < 2 or config.rotary_dim % 2):
        rotated = f"{config.rotary_dim} of {config.attention_head_size} channels"
        message = f"{rotated} of a head would be rotated: it must be an even number, at least 2"
        paths = ("attention.attention_head_size", "attention.rotary_embedding_percentage")
        yield Violation("rotary dimension even", message, paths)


def table_rows(model: Mapping[str, Scalar]) -> int:
    """Rows of the learned position table; 0 where positions enter otherwise."""
    learned = model["attention.position_embedding_type"] == "learned_absolute"
    return int(model["attention.max_position_embeddings"]) if learned else 0
