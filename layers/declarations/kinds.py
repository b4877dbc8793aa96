"""Kinds of models: the task of each, the parameters that it has, and the defaults that it sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layers.parameter import Scalar

TASKS = ("causal_lm", "classification", "seq2seq", "probe")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of model. `parameters` are the model's own that it has; below `sections` it has all but `without`."""

    task: str
    meaning: str
    sections: tuple[str, ...]
    parameters: tuple[str, ...]
    defaults: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Of parameters whose declared default is none because it follows from the kind."""
    without: tuple[str, ...] = ()

    def has(self, path: str) -> bool:
        """Whether a parameter (a path below `model`) is one of this kind's."""
        section = path.rpartition(".")[0]
        return section in self.sections and path not in self.without if section else path in self.parameters


_BLOCK = ("attention", "mlp", "norm")
_RESIDUAL = ("norm_position", "residual_scale")
_SIDE_BY_SIDE = ("residual", "shared_norm")
"""Of blocks that need not attend to an encoder between attention and feed-forward."""
_STACK = (
    "kind",
    "dtype",
    "quantization",
    "tp_size",
    "hidden_size",
    "num_layers",
    *_RESIDUAL,
    "embedding_scale",
    "has_embedding_layernorm",
    "skip_first_norm",
    "layers_sharing_weights",
    "head_bias",
)
_HEAD = ("tie_embeddings", "rescale_before_lm_head", "logits_scale", "logits_softcap")
_POOLING = ("pooling", "pooler_act", "pooler_bias", "pooler_norm", "classes")
_OF_TWO_SEQUENCES = ("attention.cross_attention", "embedding.source_num_embeddings")
_OF_PROMPTS = ("embedding.num_tasks", "embedding.vocab_size")
"""Of an embedding by itself: in a model there is one task, that of its data, and no id beyond the vocabulary."""
_OF_STACKS = ("attention.relative_table_per_layer",)
"""Of several layers."""
_CAUSAL: dict[str, Scalar] = {"attention.attention_mask_type": "causal"}

KINDS: dict[str, Kind] = {
    "decoder": Kind(
        "causal_lm",
        "a stack of causal blocks that predicts the next token",
        (*_BLOCK, "embedding"),
        (*_STACK, *_SIDE_BY_SIDE, *_HEAD),
        _CAUSAL,
        (*_OF_TWO_SEQUENCES, *_OF_PROMPTS),
    ),
    "encoder": Kind(
        "classification",
        "a stack of blocks that see both ways, pooled to one vector and classified",
        (*_BLOCK, "embedding"),
        (*_STACK, *_SIDE_BY_SIDE, *_POOLING),
        {"attention.attention_mask_type": "padding"},
        (*_OF_TWO_SEQUENCES, *_OF_PROMPTS),
    ),
    "encoder_decoder": Kind(
        "seq2seq",
        "an encoder of the source, and a decoder of the target that attends to it",
        (*_BLOCK, "embedding"),
        (*_STACK, *_HEAD, "num_encoder_layers", "share_source_embedding"),
        {**_CAUSAL, "attention.cross_attention": True},
        _OF_PROMPTS,
    ),
    "block": Kind(
        "probe",
        "one block of attention and feed-forward",
        _BLOCK,
        ("kind", "dtype", "quantization", "tp_size", "hidden_size", *_RESIDUAL, *_SIDE_BY_SIDE),
        {**_CAUSAL, "attention.cross_attention": False},
        _OF_STACKS,
    ),
    "attention": Kind(
        "probe",
        "one attention layer",
        ("attention",),
        ("kind", "dtype", "quantization", "tp_size", "hidden_size"),
        {**_CAUSAL, "attention.cross_attention": False},
        _OF_STACKS,
    ),
    "mlp": Kind(
        "probe", "one feed-forward layer", ("mlp",), ("kind", "dtype", "quantization", "tp_size", "hidden_size")
    ),
    "linear": Kind("probe", "one matrix product", ("linear",), ("kind", "dtype", "quantization", "tp_size")),
    "norm": Kind("probe", "one normalization", ("norm",), ("kind", "dtype", "hidden_size")),
    "embedding": Kind(
        "probe", "one embedding", ("embedding",), ("kind", "dtype", "tp_size", "hidden_size"), without=_OF_TWO_SEQUENCES
    ),
}


def kinds_of(task: str) -> tuple[str, ...]:
    """The kinds that fit a task, its default first."""
    return tuple(name for name, kind in KINDS.items() if kind.task == task)


def kinds_with(path: str) -> tuple[str, ...]:
    """The kinds that have a parameter."""
    return tuple(name for name, kind in KINDS.items() if kind.has(path))
