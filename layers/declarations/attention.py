"""Attention: what may be set, and what follows from it.

Multi-head, grouped-query (`num_kv_heads` < heads) and multi-query (1) attention of tokens to each other, or to those of
an encoder (cross): softmax(Q Kᵀ / (q_scaling √head_size) + bias) V, then a projection back to `hidden_size`. The bias
is the mask, with positions where they enter there (`layers.declarations.score_bias`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from layers.declarations import dtypes, masks, normalization, rotation, score_bias, tensor_parallel
from layers.declarations.linear import LinearConfig
from layers.declarations.masks import CAUSAL_MASKS
from layers.declarations.normalization import NormConfig
from layers.declarations.rotation import RotationConfig
from layers.declarations.rules import Condition, Violation
from layers.declarations.score_bias import RelativeConfig, ScoreBiasConfig, alibi_slopes
from layers.parameter import Parameter, ParameterError, Scalar, fields_of

ROTARY_TYPES = rotation.TYPES
ALIBI_TYPES = ("alibi", "alibi_with_scale")
ADDED_TYPES = ("learned_absolute", "sinusoidal", "none")
"""Positions that attention itself knows nothing of: they are added to the embedding, or are nowhere."""
POSITION_TYPES = ("learned_absolute", "sinusoidal", *ROTARY_TYPES, *ALIBI_TYPES, "relative", "none")

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
    **masks.PARAMETERS,
    "cross_attention": Parameter(
        type="boolean",
        default=None,
        meaning=(
            "tokens attend to an encoder's output; a block has it beside its self-attention, an attention layer in "
            "place of it; left out: true in an encoder_decoder, else false"
        ),
        source="Vaswani et al. 2017, arXiv 1706.03762; TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
    "position_embedding_type": Parameter(
        type="string",
        choices=POSITION_TYPES,
        default="learned_absolute",
        meaning=(
            "how a token's position enters: a learned table added to the embedding, a fixed one of sines and then "
            "cosines (sinusoidal), rotations of queries and keys (rope_gpt_neox: halves, rope_gptj: neighbours), a "
            "slope times the distance off the scores (alibi; alibi_with_scale: divided by the root of the head size), "
            "a learned bias for each bucket of distances (relative), or not at all (none: the causal mask alone tells "
            "tokens apart)"
        ),
        source=(
            "TensorRT-LLM layers; Radford et al. 2019; sinusoidal: Vaswani et al. 2017, arXiv 1706.03762; rope: Su "
            "et al. 2021, arXiv 2104.09864; alibi: Press et al. 2021, arXiv 2108.12409; relative: Raffel et al. 2020, "
            "arXiv 1910.10683; none: Kazemnejad et al. 2023, arXiv 2305.19466"
        ),
        search={"values": ["learned_absolute", "rope_gpt_neox", "alibi", "relative"]},
    ),
    **score_bias.PARAMETERS,
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
        search={"values": [512, 1024, 2048, 4096]},
    ),
    **rotation.PARAMETERS,
    "bias": Parameter(
        type="boolean",
        default=True,
        meaning="biases in the query, key, value and output products",
        source="TensorRT-LLM layers",
        search={"values": [True, False]},
    ),
    "dense_bias": Parameter(
        type="boolean",
        default=None,
        meaning="a bias in the output product; left out: as bias",
        source="Qwen2 (Yang et al. 2024, arXiv 2407.10671): biases of queries, keys and values alone",
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
    **normalization.OF_QUERIES_AND_KEYS,
    "softcap": Parameter(
        type="number",
        minimum=1e-3,
        maximum=1e6,
        default=None,
        meaning="scores s become softcap x tanh(s / softcap) before the mask; left out: they stay as they are",
        source="Gemma 2: Gemma Team 2024, arXiv 2408.00118: 50",
        search={"values": [20.0, 50.0]},
    ),
    "dtype": dtypes.layer_dtype("the products and scores of attention"),
    "tp_size": tensor_parallel.layer_tp_size("by heads"),
}

APPLIES: dict[str, Condition] = {
    **rotation.APPLIES,
    **score_bias.APPLIES,
    **masks.APPLIES,
    **normalization.OF_QUERIES_AND_KEYS_APPLIES,
    "tp_size": tensor_parallel.SHARED,
}

LATER: dict[str, str] = {}
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """One attention layer. With `cross_attention` keys and values are of the encoder's output, as wide as the model."""

    hidden_size: int
    num_attention_heads: int
    num_kv_heads: int
    attention_head_size: int
    max_position_embeddings: int
    attention_mask_type: str = "causal"
    max_attention_window_size: int | None = None
    cross_attention: bool = False
    position_embedding_type: str = "learned_absolute"
    num_buckets: int = 32
    max_distance: int = 128
    relative_table_per_layer: bool = False
    rotary_embedding_base: float = 10_000.0
    rotary_embedding_percentage: float = 1.0
    rotary_embedding_scale_type: str = "none"
    rotary_embedding_scale: float = 1.0
    original_max_position_embeddings: int = 0
    rotary_embedding_low_freq_factor: float = 1.0
    rotary_embedding_high_freq_factor: float = 4.0
    rotary_embedding_beta_fast: float = 32.0
    rotary_embedding_beta_slow: float = 1.0
    bias: bool = True
    dense_bias: bool | None = None
    """None: as `bias`."""
    q_scaling: float = 1.0
    qk_layernorm: bool = False
    qk_norm: str | None = None
    """None: as `qk_layernorm` says."""
    qk_norm_scope: str = "head"
    qk_norm_eps: float = 1e-5
    softcap: float | None = None
    dtype: str | None = None
    """None: the model's."""
    tp_size: int = 1

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> AttentionConfig:
        """The layer that the section `attention` describes, by itself."""
        return cls(hidden_size=int(model["hidden_size"]), **fields_of(model, PARAMETERS, "attention."))

    def to_itself(self, mask_type: str) -> AttentionConfig:
        """The same layer as self-attention under a mask."""
        return replace(self, cross_attention=False, attention_mask_type=mask_type)

    def to_encoder(self, mask_type: str) -> AttentionConfig:
        """The same layer attending to an encoder's output: positions of two sequences have no distance."""
        return replace(
            self,
            cross_attention=True,
            attention_mask_type=mask_type,
            max_attention_window_size=None,
            position_embedding_type="learned_absolute",
        )

    @property
    def query(self) -> LinearConfig:
        return LinearConfig(self.hidden_size, self.num_attention_heads * self.attention_head_size, self.bias)

    @property
    def key_value(self) -> LinearConfig:
        """Keys and values in one product."""
        return LinearConfig(self.hidden_size, 2 * self.num_kv_heads * self.attention_head_size, self.bias)

    @property
    def qkv(self) -> LinearConfig:
        """Queries, keys and values in one product: of self-attention."""
        return LinearConfig(self.hidden_size, self.query.out_features + self.key_value.out_features, self.bias)

    @property
    def dense(self) -> LinearConfig:
        bias = self.bias if self.dense_bias is None else self.dense_bias
        return LinearConfig(self.num_attention_heads * self.attention_head_size, self.hidden_size, bias)

    @property
    def query_norm(self) -> NormConfig | None:
        return self._norm_over(self.num_attention_heads)

    @property
    def key_norm(self) -> NormConfig | None:
        return self._norm_over(self.num_kv_heads)

    def _norm_over(self, heads: int) -> NormConfig | None:
        kind = self.qk_norm or ("LayerNorm" if self.qk_layernorm else "none")
        if kind == "none":
            return None
        width = self.attention_head_size * (heads if self.qk_norm_scope == "width" else 1)
        return NormConfig(kind, width, self.qk_norm_eps, bias=kind == "LayerNorm")

    @property
    def rotation(self) -> RotationConfig | None:
        """None without rotation."""
        rotated_channels = int(self.attention_head_size * self.rotary_embedding_percentage)
        if self.position_embedding_type not in ROTARY_TYPES or rotated_channels == 0:
            return None
        return RotationConfig(
            rotated_channels=rotated_channels,
            positions=self.max_position_embeddings,
            base=self.rotary_embedding_base,
            interleaved=self.position_embedding_type == "rope_gptj",
            scale_type=self.rotary_embedding_scale_type,
            scale=self.rotary_embedding_scale,
            original_positions=self.original_max_position_embeddings,
            low_freq_factor=self.rotary_embedding_low_freq_factor,
            high_freq_factor=self.rotary_embedding_high_freq_factor,
            beta_fast=self.rotary_embedding_beta_fast,
            beta_slow=self.rotary_embedding_beta_slow,
        )

    @property
    def score_bias(self) -> ScoreBiasConfig:
        """What is added to its scores."""
        relative, slopes = None, ()
        if self.position_embedding_type == "relative":
            bidirectional = self.attention_mask_type not in CAUSAL_MASKS
            relative = RelativeConfig(self.num_attention_heads, self.num_buckets, self.max_distance, bidirectional)
        if self.position_embedding_type in ALIBI_TYPES:
            scaled = self.position_embedding_type == "alibi_with_scale"
            divisor = math.sqrt(self.attention_head_size) if scaled else 1.0
            slopes = tuple(slope / divisor for slope in alibi_slopes(self.num_attention_heads))
        return ScoreBiasConfig(self.attention_mask_type, self.max_attention_window_size, relative, slopes)

    def parameter_count(self) -> int:
        """Without those of `score_bias`, which layers share."""
        norms = sum(norm.parameter_count() for norm in (self.query_norm, self.key_norm) if norm is not None)
        products = (self.query, self.key_value, self.dense)
        return sum(product.parameter_count() for product in products) + norms

    def flops(self, batch_size: int, queries: int, keys: int) -> int:
        """Of all products over so many tokens a sequence, scores of masked pairs included: the engine computes them."""
        rows, pairs = batch_size * queries, batch_size * queries * keys * self.num_attention_heads
        products = self.query.flops(rows) + self.dense.flops(rows) + self.key_value.flops(batch_size * keys)
        return products + 2 * 2 * pairs * self.attention_head_size


def follow(model: dict[str, Scalar]) -> None:
    """Fill in the defaults that follow from other parameters.

    `attention_head_size` stays absent if the heads do not divide the width: that is a broken rule, not a default.
    """
    heads, width = int(model["attention.num_attention_heads"]), int(model["hidden_size"])
    tensor_parallel.follow(model, "attention")
    dtypes.follow(model, "attention")
    model.setdefault("attention.num_kv_heads", heads)
    if width % heads == 0:
        model.setdefault("attention.attention_head_size", width // heads)
    normalization.follow_queries_and_keys(model)


def follow_lengths(model: dict[str, Scalar], longest: int | None) -> None:
    """Fill in what follows from the longest sequence. Raises ParameterError if that is longer than what is given."""
    path = "attention.max_position_embeddings"
    if longest is not None:
        model.setdefault(path, longest)
    if path not in model:
        raise ParameterError(path, "is missing", "give inference.sequence_length, or give it")
    positions = int(model[path])
    if longest is not None and positions < longest:
        message = f"{positions} positions are too few for sequences of {longest}"
        raise ParameterError(path, message, f"at least {longest}, or leave it out")
    if masks.APPLIES["max_attention_window_size"].holds(model):
        model.setdefault("attention.max_attention_window_size", -(-(longest or positions) // 2))


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    yield from _broken_heads(model)
    yield from _broken_shares(model)
    yield from dtypes.broken_rules(model, "attention")
    yield from masks.broken_rules(model)
    yield from _broken_crossing(model)
    if model["attention.position_embedding_type"] == "relative":
        yield from score_bias.broken_rules(model)
    yield from normalization.broken_by_queries_and_keys(model)


def _broken_heads(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    heads, kv_heads = int(model["attention.num_attention_heads"]), int(model["attention.num_kv_heads"])
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
    if model["attention.position_embedding_type"] in ROTARY_TYPES:
        yield from rotation.broken_rules(model)


def _broken_shares(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    heads = {"attention.num_attention_heads": int(model["attention.num_attention_heads"])}
    yield from tensor_parallel.broken_rules(model, "attention", heads)
    size, kv_heads = int(model.get("attention.tp_size", 1)), int(model["attention.num_kv_heads"])
    if size % kv_heads and kv_heads % size:
        message = f"{size} devices can neither share {kv_heads} key and value heads evenly, nor share one evenly"
        yield Violation("num_kv_heads and tp_size", message, ("attention.num_kv_heads", "attention.tp_size"))


def _broken_crossing(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    kind, crosses = str(model["kind"]), model.get("attention.cross_attention", False)
    if kind == "encoder_decoder" and not crosses:
        message = "an encoder_decoder without cross attention would never see its source"
        yield Violation("encoder_decoder needs cross attention", message, ("kind", "attention.cross_attention"))
    position = model["attention.position_embedding_type"]
    if kind == "attention" and crosses and position not in ADDED_TYPES:
        message = f"{position} does not apply to cross attention: tokens of two sequences have no distance"
        paths = ("attention.cross_attention", "attention.position_embedding_type")
        yield Violation("cross attention has no distances", message, paths)


def table_rows(model: Mapping[str, Scalar]) -> int:
    """Rows of the learned position table; 0 if positions enter otherwise."""
    return _rows(model, "learned_absolute")


def sinusoidal_rows(model: Mapping[str, Scalar]) -> int:
    """Rows of the fixed position table; 0 if positions enter otherwise."""
    return _rows(model, "sinusoidal")


def _rows(model: Mapping[str, Scalar], position_type: str) -> int:
    has_table = model["attention.position_embedding_type"] == position_type
    return int(model["attention.max_position_embeddings"]) if has_table else 0
