"""T5: an encoder and a decoder of one table, with learned biases of relative distances."""

from __future__ import annotations

import math
from collections.abc import Sequence

from layers.checkpoints.architecture import Architecture, Config, Model
from layers.checkpoints.blocks import Names, attention
from layers.checkpoints.config_json import ConfigJson
from layers.checkpoints.tensors import Constant, Link, Part, same
from layers.checkpoints.values import NO_TOKENS, activation, our_activation_of
from layers.declarations.attention import AttentionConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.per_layer import views
from layers.parameter import Scalar

_NAMES: Names = {letter: letter for letter in "qkvo"}


def _t5(model: Model) -> Config:
    act, gated = activation(model), model["mlp.kind"] != "MLP"
    # "gated-gelu" means the approximation there.
    proj = f"gated-{'gelu' if act == 'gelu_new' else act}" if gated else act
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "d_model": int(model["hidden_size"]),
        "d_kv": int(model["attention.attention_head_size"]),
        "d_ff": int(model["mlp.ffn_hidden_size"]),
        "num_layers": int(model["num_encoder_layers"]),
        "num_decoder_layers": int(model["num_layers"]),
        "num_heads": int(model["attention.num_attention_heads"]),
        "relative_attention_num_buckets": int(model["attention.num_buckets"]),
        "relative_attention_max_distance": int(model["attention.max_distance"]),
        "n_positions": int(model["attention.max_position_embeddings"]),
        "layer_norm_epsilon": float(model["norm.eps"]),
        "feed_forward_proj": proj,
        "is_encoder_decoder": True,
        "tie_word_embeddings": bool(model.get("rescale_before_lm_head", False)),
        "dropout_rate": 0.0,
        **NO_TOKENS,
    }


def _our_t5(config: ConfigJson) -> dict[str, Scalar]:
    size, layers = config.integer("d_kv", 64), config.integer("num_layers", 6)
    gated, _, act = config.text("feed_forward_proj", "relu").rpartition("-")
    # T5 v1.1 says that it is not tied; whether its head is the table is told by the tensors.
    rescaled = config.flag("scale_decoder_outputs", config.flag("tie_word_embeddings", True))
    return {
        "kind": "encoder_decoder",
        "num_layers": config.integer("num_decoder_layers", layers),
        "num_encoder_layers": layers,
        "hidden_size": config.integer("d_model", 512),
        "norm_position": "pre",
        "tie_embeddings": True,
        "rescale_before_lm_head": rescaled,
        "share_source_embedding": True,
        "embedding.num_embeddings": config.integer("vocab_size"),
        "attention.num_attention_heads": config.integer("num_heads", 8),
        "attention.attention_head_size": size,
        "attention.max_position_embeddings": config.integer("n_positions", 512),
        "attention.position_embedding_type": "relative",
        "attention.num_buckets": config.integer("relative_attention_num_buckets", 32),
        "attention.max_distance": config.integer("relative_attention_max_distance", 128),
        "attention.q_scaling": 1.0 / math.sqrt(size),
        "attention.bias": False,
        "mlp.kind": "GatedMLP" if gated == "gated" else "MLP",
        "mlp.ffn_hidden_size": config.integer("d_ff", 2048),
        "mlp.hidden_act": our_activation_of("gelu_new" if (gated, act) == ("gated", "gelu") else act),
        "mlp.bias": False,
        "norm.kind": "RmsNorm",
        "norm.eps": config.number("layer_norm_epsilon", 1e-6),
    }


def _parts(model: Model) -> list[Part]:
    rows = int(model["embedding.num_embeddings"])
    parts: list[Part] = [same("embedding.table.weight", "shared.weight", rows)]
    if not model.get("rescale_before_lm_head", False):
        # Versions that take `tie_word_embeddings` at its word read a head of its own.
        parts.append(Link({"embedding.table.weight": rows}, {"lm_head.weight": rows}, copied=True))
    for stack, layers in (("encoder", views(model, "encoder_layers")), ("decoder", views(model))):
        parts += _stack(stack, layers)
    return parts


def _stack(stack: str, layers: Sequence[Model]) -> list[Part]:
    width, buckets = int(layers[0]["hidden_size"]), int(layers[0]["attention.num_buckets"])
    heads = int(layers[0]["attention.num_attention_heads"])
    table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    parts: list[Part] = [
        Link({f"{stack}.score_biases.0.relative.table": heads}, {table: buckets}, transposed=True),
        _scale(layers[-1], f"{stack}.final_layernorm", f"{stack}.final_layer_norm", width),
    ]
    for number, layer in enumerate(layers):
        ours, theirs = f"{stack}.layers.{number}", f"{stack}.block.{number}.layer"
        own = AttentionConfig.of(layer).to_itself("padding")
        parts.append(_scale(layer, f"{ours}.input_layernorm", f"{theirs}.0.layer_norm", width))
        parts += attention(own, f"{ours}.attention", f"{theirs}.0.SelfAttention", _NAMES, has_biases=False)
        place = 1
        if stack == "decoder":
            crossing = own.to_encoder("padding")
            parts.append(_scale(layer, f"{ours}.cross_layernorm", f"{theirs}.1.layer_norm", width))
            parts += attention(
                crossing, f"{ours}.cross_attention", f"{theirs}.1.EncDecAttention", _NAMES, has_biases=False
            )
            place = 2
        parts.append(_scale(layer, f"{ours}.post_layernorm", f"{theirs}.{place}.layer_norm", width))
        parts += _mlp(layer, f"{ours}.mlp", f"{theirs}.{place}.DenseReluDense")
    return parts


def _scale(layer: Model, ours: str, theirs: str, width: int) -> Part:
    if not layer["norm.elementwise_affine"]:
        return Constant(f"{theirs}.weight", (width,), 1.0)
    return same(f"{ours}.weight", f"{theirs}.weight", width)


def _mlp(layer: Model, ours: str, theirs: str) -> list[Part]:
    mlp = MlpConfig.of(layer)
    inner = mlp.ffn_hidden_size
    parts: list[Part] = [same(f"{ours}.proj.weight", f"{theirs}.wo.weight", mlp.hidden_size)]
    if mlp.kind == "MLP":
        return [*parts, same(f"{ours}.fc.weight", f"{theirs}.wi.weight", inner)]
    own = {f"{ours}.gate.weight": inner, f"{ours}.up.weight": inner}
    if mlp.kind == "FusedGatedMLP":
        own = {f"{ours}.fused_fc.weight": 2 * inner}
    return [*parts, Link(own, {f"{theirs}.wi_0.weight": inner, f"{theirs}.wi_1.weight": inner})]


ARCHITECTURES = (
    Architecture(
        "T5",
        "T5ForConditionalGeneration",
        "t5",
        "encoder_decoder",
        {
            "norm_position": ("pre",),
            "norm.kind": ("RmsNorm",),
            "attention.position_embedding_type": ("relative",),
            "share_source_embedding": (True,),
            "tie_embeddings": (True,),
            "embedding.kind": ("Embedding",),
        },
        _t5,
        _our_t5,
        _parts,
        frozenset({"norm.elementwise_affine"}),
        ignored=lambda name: name.endswith("embed_tokens.weight"),
    ),
)
